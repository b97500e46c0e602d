"""Orders: what was asked for, when and on which station, and what was performed (IHE SWF)."""
