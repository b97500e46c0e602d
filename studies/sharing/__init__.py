"""Colleagues: words on a study, requests for a second opinion, teaching files."""
