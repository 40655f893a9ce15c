"""Two stages: sources propose, a ranker orders, rules choose."""
