"""The most that a setting may ask for; above it only a mistake, or malice, is meant."""

MOST_CPUS = 8192  # of any Linux
MOST_PIXELS = 1 << 16  # in a row or column: more than any encoder takes
