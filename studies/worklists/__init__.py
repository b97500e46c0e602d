"""The worklist and the study page."""
