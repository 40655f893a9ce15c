"""Arrays and threads: compiled loops, shards of rows, memory."""
