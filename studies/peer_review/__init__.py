"""Peer review: a sample of signed reports, scored blind by colleagues (ACR RADPEER)."""
