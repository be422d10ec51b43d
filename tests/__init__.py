import os

# Tests run side by side, and numpy's threads would burn the other workers' time waiting for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
