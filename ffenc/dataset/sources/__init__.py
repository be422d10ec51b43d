"""Kinds of sources, one file each: what they are recognised by, and how they are read as episodes."""
