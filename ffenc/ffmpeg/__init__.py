"""FFmpeg's programs: find, run and query them. The only package that starts processes."""
