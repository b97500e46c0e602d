"""Atrium beside Orthanc on the same data in one run; see __main__.py."""
