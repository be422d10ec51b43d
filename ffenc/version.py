"""The version of ffenc."""

VERSION = "0.1.0"
