"""Parts of the page: its tables, the figures that it adds, its data, its code and its style."""
