"""How many units of work run at once, and how far they are. Knows nothing of the work."""
