"""Remote storage: datasets in buckets and on the Hub, their local copies, and uploads."""
