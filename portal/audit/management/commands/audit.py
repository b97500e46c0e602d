"""``manage.py audit verify``: prove the trail, or name the first broken place."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from portal.audit.selectors import verify_chain


class Command(BaseCommand):
    help = "Prove that the audit trail is whole. Exit 0 when it is, 1 when it isn't."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=["verify"])

    def handle(self, *args: Any, **options: Any) -> None:
        verdict = verify_chain()
        if verdict.is_whole:
            self.stdout.write(f"The trail is whole: {verdict.events} events.")
            return
        self.stderr.write(f"The trail is broken at event {verdict.broken_at}: {verdict.reason}.")
        sys.exit(1)
