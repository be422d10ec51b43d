"""Executors: where the tasks of a job run, and how many at once."""
