"""What would make a reviewer reject a dataset's table, found before any training."""
