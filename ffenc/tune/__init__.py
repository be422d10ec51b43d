"""Choose encoder settings by testing them on a dataset's own frames."""
