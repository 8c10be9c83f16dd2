"""Painters of figures, one a kind, and what they have in common."""
