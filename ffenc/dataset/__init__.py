"""LeRobot datasets and other sources: read, re-encode, merge, edit, verify, publish."""
