"""What every room uses: errors, config, catalogue, files, environment, progress, units."""
