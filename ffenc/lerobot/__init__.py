"""The LeRobot dataset format, once: its paths, columns, defaults and limits."""
