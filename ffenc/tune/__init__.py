"""Choose encoder settings by trying them on a dataset's own pictures."""
