"""The codec table, and the translation of encoder settings to FFmpeg options: pure data and functions."""
