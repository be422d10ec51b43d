"""Quality metrics of video, one file per metric."""
