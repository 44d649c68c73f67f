"""The page at ``/``: plain files, which load nothing from elsewhere."""
