"""Settings of the user: encoder configs and robot presets. Pure data."""
