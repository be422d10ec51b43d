"""Find everything that is wrong with a dataset or a video file."""
