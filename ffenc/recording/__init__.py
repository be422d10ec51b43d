"""Live recording of cameras to episodes."""
