"""OHIF embedded."""
