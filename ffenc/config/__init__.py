"""What the user asked for: encoder configs and robot presets. Pure data."""
