"""Official releases: fetched, checked, and joined to one table of images."""
