"""Where user-side work runs."""
