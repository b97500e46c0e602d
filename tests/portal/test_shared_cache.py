"""What is counted about signing in is counted over all processes."""

from __future__ import annotations

import subprocess
import sys

from django.core.cache import cache

from tests.services.atrium import ROOT


def test_another_process_sees_what_this_one_counted() -> None:
    cache.set("atrium-attempts", 5, 60)
    script = "from django.core.cache import cache; print(cache.incr('atrium-attempts'))"
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", script]
    other = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert other.stdout.strip() == "6"
    assert cache.get("atrium-attempts") == 6
