"""``manage.py create_api_token USERNAME --name N [--capability C …] [--site S] [--days D]``."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.capabilities import Capability
from accounts.models import Site, User
from accounts.services import create_api_token


class Command(BaseCommand):
    help = "Make a bearer token for a user's programs and print it, alone on the last line."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", required=True, help="what the token is for")
        parser.add_argument("--capability", action="append", default=[], choices=[str(c) for c in Capability.values])
        parser.add_argument("--site", help="slug of the only site where the token holds")
        parser.add_argument("--days", type=int, default=365, help="days until it expires (default 365)")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']}.")
        site = None
        if options["site"]:
            site = Site.objects.filter(slug=options["site"]).first()
            if site is None:
                raise CommandError(f"There is no site {options['site']}.")
        token, text = create_api_token(
            user=user,
            name=options["name"],
            capabilities=[Capability(c) for c in options["capability"]],
            site=site,
            days=options["days"],
        )
        self.stderr.write(f"Token «{token.name}» of {user.username}, valid until {token.expires_at:%Y-%m-%d}:")
        self.stdout.write(text)
