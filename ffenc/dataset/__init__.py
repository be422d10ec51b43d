"""LeRobot datasets and PNG trees: read, re-encode, publish."""
