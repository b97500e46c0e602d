"""``make bench``: measures Atrium beside Orthanc and prints ratios.

``python -m benchmarks`` runs the data plane and the viewer; a name runs one of plane, viewer, case, dimse, queries
and worklist, with ``--help`` for its options. Machines are noisy: ratios and CPU time count, not figures.
"""

from __future__ import annotations

import os
import sys
import tempfile

import django

# The tests' factories and services are used, which need Django's settings; the servers get folders of their own.
os.environ.setdefault("ATRIUM_DATA", tempfile.mkdtemp(prefix="atrium-bench-settings-"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from benchmarks import case, dimse, plane, queries, viewer, worklist  # noqa: E402  settings come first

SECTIONS = {
    "plane": plane.main,
    "viewer": viewer.main,
    "case": case.main,
    "dimse": dimse.main,
    "queries": queries.main,
    "worklist": worklist.main,
}


def main() -> None:
    """Run the section that is named, or the data plane and the viewer."""
    name, *arguments = sys.argv[1:] or [""]
    if name and name not in SECTIONS:
        sys.exit(f"There is no benchmark {name!r}; there are {', '.join(SECTIONS)}.")
    for section in [name] if name else ["plane", "viewer"]:
        SECTIONS[section](arguments)


if __name__ == "__main__":
    main()
