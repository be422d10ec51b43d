"""Cameras to episodes, live."""
