"""Workitems: Unified Worklist and Procedure Step (PS3.4 Annex CC)."""
