"""Config -> FFmpeg argument list. Pure functions: the same input gives the same list on any machine."""
