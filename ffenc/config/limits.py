"""Greatest values of settings; a greater value is a mistake or malicious."""

MOST_CPUS = 8192  # Linux's limit
MOST_PIXELS = 1 << 16  # in a row or column: above the limits of all encoders
