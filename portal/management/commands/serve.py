"""``manage.py serve [web|dicom|worker|network|scheduler]``: all of Atrium in one command, or one part alone."""

from __future__ import annotations

import os
import resource
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from portal.supervisor import Child, supervise
from portal.threads import LONGEST_HEADERS
from studies.dimse import listener

PARTS = ("web", "dicom", "worker", "network", "scheduler")
MANAGE = str(Path(settings.BASE_DIR) / "manage.py")


class Command(BaseCommand):
    help = "Serve web, DICOM listener, job worker and scheduler; with a name, that part alone."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("part", nargs="?", choices=PARTS)

    def handle(self, *args: Any, **options: Any) -> None:
        part = options["part"]
        if part is None:
            self._announce()
            supervise([Child(name, [sys.executable, MANAGE, "serve", name]) for name in PARTS])
        elif part == "dicom":
            listener.run()
        else:
            command = {"web": _web, "worker": _worker, "network": _network, "scheduler": _scheduler}[part]()
            os.execv(command[0], command)  # noqa: S606  our own command

    def _announce(self) -> None:
        atrium = settings.ATRIUM
        self.stdout.write("")
        self.stdout.write(f"  Atrium            {atrium.public_url}/")
        self.stdout.write(f"  DICOM             AE title {atrium.ae_title}, port {atrium.dicom_port}")
        password = atrium.data / "demo-password"
        if password.exists():
            self.stdout.write(
                "  Demo people       radiologist resident technologist referrer southradiologist compliance admin"
            )
            self.stdout.write(f"  Their password    {password.read_text().strip()}")
        self.stdout.write("  Ctrl-C stops everything.\n")
        self.stdout.flush()


def _beside_python(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


# Frames are half a megabyte each: glibc would map and unmap every one, and each new page costs a fault.
# Measured: 0.26 instead of 0.85 ms of CPU per frame (docs/performance.md).
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": "4194304",
}
# Of one connection: headers as long as we read them (portal/threads.py), hundreds of unfinished requests at most, and
# an end when nobody answers at its other side (docs/security.md).
HTTP2 = {
    "--http2-max-headers-size": str(LONGEST_HEADERS),
    "--http2-max-concurrent-streams": "128",
    "--http2-keep-alive-interval": "20000",
    "--http2-keep-alive-timeout": "20",
}
# A connection that says nothing costs a few kilobytes, and isn't closed: its kind mustn't soon keep out all others.
MOST_CONNECTIONS = 8192
WORKER_NICENESS = 5


def _web() -> list[str]:
    atrium = settings.ATRIUM
    for name, value in MEMORY.items():
        os.environ.setdefault(name, value)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    tls = ["--ssl-certificate", atrium.tls_certificate, "--ssl-keyfile", atrium.tls_key]
    return [
        *(_beside_python("granian"), "--interface", "asgi"),
        *("--host", atrium.http_host, "--port", str(atrium.http_port), "--http", atrium.http_version),
        *("--workers", str(atrium.web_workers), "--backlog", "1024"),
        *("--backpressure", str(MOST_CONNECTIONS)),
        *(word for option in HTTP2.items() for word in option),
        *("--respawn-failed-workers", "--workers-kill-timeout", "10", "--log-level", "error"),
        *(tls if atrium.tls_certificate else []),
        "portal.asgi:application",
    ]


def _worker() -> list[str]:
    """Jobs, below who waits for an answer: metadata of what was stored can be built once nobody asks for more."""
    os.nice(WORKER_NICENESS)
    return [
        *(_beside_python("celery"), "--quiet", "-A", "portal", "worker", "--pool", "threads", "--concurrency", "2"),
        *("--loglevel", "WARNING", "--without-gossip", "--without-mingle"),
    ]


def _network() -> list[str]:
    """Workers for the nodes' queues alone: a slow node keeps no report's PDF waiting."""
    return [
        *(_beside_python("celery"), "--quiet", "-A", "portal", "worker", "--pool", "threads", "--concurrency", "16"),
        *("--queues", "network", "--hostname", "network@%h"),
        *("--loglevel", "WARNING", "--without-gossip", "--without-mingle"),
    ]


def _scheduler() -> list[str]:
    return [
        *(_beside_python("celery"), "--quiet", "-A", "portal", "beat", "--loglevel", "WARNING"),
        *("--pidfile", "", "--schedule", settings.CELERY_BEAT_SCHEDULE_FILENAME),
    ]
