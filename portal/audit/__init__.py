"""The trail: access and change records in a hash chain, review screens, exports."""
