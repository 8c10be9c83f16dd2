"""Frozen features: computed in every step, or once per image."""
