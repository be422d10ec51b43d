"""Pixels in and out: images from folders and parquet, arrays, and the encode that proves its result."""
