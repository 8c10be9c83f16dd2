"""The methods that petlbench ships: one file each, found by the catalogue."""
