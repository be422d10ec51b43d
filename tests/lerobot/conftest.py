"""What is run by LeRobot's own python is not collected here."""

collect_ignore = ["inside", "with_ffenc.py", "lerobots_own.py", "operations.py", "repaired.py"]
