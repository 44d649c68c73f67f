"""Studies: settings, stages, cells."""
