"""Find all faults of a dataset or a video file."""
