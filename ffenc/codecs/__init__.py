"""The codec table and what it takes to turn encoder settings into FFmpeg options: pure data and functions."""
