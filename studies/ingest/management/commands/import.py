"""``manage.py import PATH…``: files, folders, ZIPs and CDs through the one way in."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from studies.ingest.services import Outcome, Source, StagedFile, Status, WayIn, ingest, stage
from studies.ingest.sources import UnacceptableZip, files_of

BATCH = 20


class Command(BaseCommand):
    help = "Import files, folders, ZIPs and CDs. Exit 0 when all is in, 1 when some files were refused (listed)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
        parser.add_argument("--site", help="slug of the site (default: the first)")

    def handle(self, *args: Any, **options: Any) -> None:
        source = _source(options["site"])
        self.counts = dict.fromkeys(Status, 0)
        self.refused: list[tuple[str, str]] = []
        batch: list[StagedFile] = []
        for path in options["paths"]:
            try:
                for member in files_of(path):
                    batch.append(stage(member.chunks, file_name=member.name))
                    if len(batch) == BATCH:
                        self._ingest(batch, source)
                        batch = []
            except (OSError, UnacceptableZip) as error:
                self.refused.append((str(path), str(error)))
        self._ingest(batch, source)
        self._report()

    def _ingest(self, batch: list[StagedFile], source: Source) -> None:
        outcomes: list[Outcome] = ingest(batch, source)
        for outcome in outcomes:
            self.counts[outcome.status] += 1
            if not outcome.is_in:
                self.refused.append((outcome.file_name, outcome.reason))
        ending = "\r" if sys.stderr.isatty() else "\n"
        self.stderr.write(f"  {sum(self.counts.values())} files", ending=ending)

    def _report(self) -> None:
        c = self.counts
        self.stdout.write(
            f"{c[Status.STORED]} stored, {c[Status.DUPLICATE]} already there, "
            f"{c[Status.CONFLICT]} kept as second versions, {len(self.refused)} refused"
        )
        for name, reason in self.refused:
            self.stdout.write(f"refused: {name}: {reason}")
        if self.refused:
            sys.exit(1)


def _source(slug: str | None) -> Source:
    site = Site.objects.filter(slug=slug).first() if slug else Site.objects.order_by("pk").first()
    if site is None:
        raise CommandError(f"There is no site {slug}." if slug else "There is no site yet: run manage.py bootstrap.")
    principal = Principal(grants=frozenset({(Capability.STUDY_UPLOAD.value, site.pk)}), ae_title="manage.py import")
    return Source(WayIn.IMPORT, site, principal)
