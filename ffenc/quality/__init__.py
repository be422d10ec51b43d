"""How good pictures of a video are, by metrics; one file a metric."""
