"""``manage.py bootstrap --site NAME --admin USERNAME``: a first real installation."""

from __future__ import annotations

import getpass
import os
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils.text import slugify

from accounts.models import Site, User
from accounts.services import create_built_in_roles, create_user


class Command(BaseCommand):
    help = (
        "Make the first site and the installation's administrator; "
        "the password comes from ATRIUM_ADMIN_PASSWORD or is asked for."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--site", required=True, help="name of the first site")
        parser.add_argument("--admin", required=True, help="user name of the administrator")

    def handle(self, *args: Any, **options: Any) -> None:
        if User.objects.filter(username=options["admin"]).exists():
            raise CommandError(f"There is already a user {options['admin']}.")
        password = os.environ.get("ATRIUM_ADMIN_PASSWORD") or getpass.getpass("Password of the administrator: ")
        try:
            validate_password(password)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        slug = slugify(options["site"])[:32]
        if not slug:
            raise CommandError("The site's name needs at least one letter or digit.")
        with transaction.atomic():
            roles = create_built_in_roles()
            Site.objects.get_or_create(slug=slug, defaults={"name": options["site"]})
            create_user(username=options["admin"], password=password, role=roles["administrator"], sites=[None])
        self.stdout.write(f"Site {slug} and administrator {options['admin']} are there. Start with: manage.py serve")
