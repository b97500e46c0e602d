"""``manage.py`` that has started already: most of what a command costs is loading Django and us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn


class Console:
    """A process that has loaded an installation's settings and runs each command in a fork of itself."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.environment = dict(environment)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.console"],
            env=environment,
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """Run ``manage.py`` with the arguments and give what it printed. Raises CalledProcessError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            files = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
            self._process.stdin.write(json.dumps([files, arguments]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            out.seek(0)
            err.seek(0)
            printed, complaint = out.read(), err.read()
        if answer.strip() != "0":
            raise subprocess.CalledProcessError(int(answer or -1), ["manage.py", *arguments], printed, complaint)
        return printed

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _serve() -> None:
    import django
    from django.core import checks

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    django.setup()
    # Loads every room's views, as each command's own checks would.
    checks.run_checks()
    for line in sys.stdin:
        files, arguments = json.loads(line)
        child = os.fork()
        if not child:
            for descriptor, path in zip((1, 2), files, strict=True):
                os.dup2(os.open(path, os.O_WRONLY), descriptor)
            _run(arguments)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(arguments: list[str]) -> NoReturn:
    from django.core.management import execute_from_command_line

    status = 1
    try:
        execute_from_command_line(["manage.py", *arguments])
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    # Without taking down all that was loaded, which is the parent's.
    os._exit(status)


if __name__ == "__main__":
    _serve()
