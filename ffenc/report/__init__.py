"""HTML reports, each in one file that loads nothing from elsewhere."""
