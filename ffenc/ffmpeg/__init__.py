"""The real programs: find them, run them, ask them. The only room that starts a process."""
