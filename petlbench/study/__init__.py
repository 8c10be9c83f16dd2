"""Studies: many runs that belong together, carried out until each is finished once, whatever happens on the way."""
