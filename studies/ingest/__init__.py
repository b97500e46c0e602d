"""The one way in: a stream becomes a stored, indexed, acknowledged instance."""
