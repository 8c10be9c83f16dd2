"""ONE run: resolved, carried out, recorded, and brought back to predict or export."""
