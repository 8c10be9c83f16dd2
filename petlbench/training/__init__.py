"""The loop, one optimiser step, and evaluation."""
