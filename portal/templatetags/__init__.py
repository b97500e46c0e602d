"""Template tags of the building."""
