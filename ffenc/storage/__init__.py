"""Where bytes live: datasets in buckets and on the Hub, their local copies, and what is uploaded."""
