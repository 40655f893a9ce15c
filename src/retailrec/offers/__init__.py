"""From scores to a campaign: who gets which offer, what was offered, and whether it worked."""
