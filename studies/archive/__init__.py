"""The one way out of storage: bytes, frames, metadata, rendered images."""
