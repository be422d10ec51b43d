"""How many units of work are run: here, on a pool. Knows nothing of the work."""
