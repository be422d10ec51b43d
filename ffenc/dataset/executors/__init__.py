"""Where the pieces of a job are made, and how many at once."""
