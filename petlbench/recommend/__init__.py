"""Which method, for my data, on my card, in my hours."""
