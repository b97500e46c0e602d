"""``manage.py demo``: the demo installation, made once; a second call finds it there."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from portal.demo.installation import create_people, demo_password, import_studies
from portal.demo.orders import create_orders


class Command(BaseCommand):
    help = "Make the demo installation with two sites, seven people and some twenty studies."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--again", action="store_true", help="import the studies even if that was done before")

    def handle(self, *args: Any, **options: Any) -> None:
        done = settings.ATRIUM.data / "demo-installed"
        if done.exists() and not options["again"]:
            return
        people = create_people(demo_password(settings.ATRIUM.data))
        create_orders(people)
        refused = import_studies(people["admin"], progress=self._progress)
        self.stderr.write("")
        for outcome in refused:
            self.stderr.write(f"refused: {outcome.file_name}: {outcome.reason}")
        if not refused:
            done.touch()

    def _progress(self, description: str, instances: int) -> None:
        if sys.stderr.isatty():
            self.stderr.write(f"\r\x1b[K  importing demo studies: {instances} instances  {description[:50]}", ending="")
        elif instances % 100 == 0:
            self.stderr.write(f"  importing demo studies: {instances} instances")
