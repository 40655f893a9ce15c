"""What the command line asks for: settings in, files out."""
