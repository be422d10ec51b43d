"""Frames in and out of video: images from folders and parquet, arrays, encoding and its verification."""
