"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Settings read the environment when Django starts: the tests' own data folder must be known before that.
os.environ["ATRIUM_DATA"] = tempfile.mkdtemp(prefix="atrium-test-")
os.environ.setdefault("ATRIUM_SECRET_KEY", "only for tests")
# Named here, not in pyproject.toml, and not left to pytest-xdist's workers: pytest-django would load the settings
# before the line that gives each process a data folder of its own.
os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"

import django

django.setup()
del os.environ["DJANGO_SETTINGS_MODULE"]

import pytest
from django.conf import settings
from django.test import Client

from accounts import credentials
from accounts.models import Site, User
from accounts.services import create_api_token
from portal.audit import services as audit_services
from studies.ingest.services import Outcome
from tests.factories import SHARED, ingest_as, make_people, principal_of
from tests.services.atrium import Atrium, running_atrium


@pytest.fixture(autouse=True)
def _forget_recorded_viewing() -> Iterator[None]:
    audit_services.forget_recorded()
    credentials.forget_all()
    yield
    audit_services.forget_recorded()


@pytest.fixture(autouse=True)
def _objects_of_this_test_only(tmp_path: Path, settings: settings) -> None:
    storages = {alias: dict(options) for alias, options in settings.STORAGES.items()}
    storages["objects"]["OPTIONS"] = {"location": str(tmp_path / "objects")}
    storages["quarantine"]["OPTIONS"] = {"location": str(tmp_path / "quarantine")}
    settings.STORAGES = storages
    settings.STAGING_ROOT = tmp_path / "staging"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def sites(db: None) -> dict[str, Site]:
    return {slug: Site.objects.create(slug=slug, name=f"{slug.title()} Hospital") for slug in ("north", "south")}


@pytest.fixture
def north(sites: dict[str, Site]) -> Site:
    return sites["north"]


@pytest.fixture
def south(sites: dict[str, Site]) -> Site:
    return sites["south"]


@pytest.fixture
def people(sites: dict[str, Site]) -> dict[str, User]:
    return make_people(sites)


@pytest.fixture
def client_of(people: dict[str, User]) -> Callable[[str], Client]:
    """Give a browser in which the person is signed in."""

    def signed_in(username: str) -> Client:
        client = Client()
        client.force_login(people[username], backend=settings.AUTHENTICATION_BACKENDS[0])
        return client

    return signed_in


@pytest.fixture
def token_of(people: dict[str, User]) -> Callable[[str], str]:
    """Give the text of a bearer token of the person."""

    def token(username: str) -> str:
        return create_api_token(user=people[username], name="test")[1]

    return token


@pytest.fixture
def ingest_files(people: dict[str, User]) -> Callable[..., list[Outcome]]:
    """Put files or bytes into a site's archive, as the administrator."""

    def put(site: Site, *files: bytes | Path) -> list[Outcome]:
        return ingest_as(principal_of(people["admin"]), site, files)

    return put


@pytest.fixture(scope="session")
def shared() -> Path:
    """Give the folder of real files that lies beside a developer's checkout."""
    if not (SHARED / "dicom" / "MANIFEST.tsv").exists():
        pytest.skip("../shared with its real DICOM files isn't here")
    return SHARED


@pytest.fixture(scope="session")
def atrium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    """Give a running installation: web, DICOM listener and worker as real processes, shared by a session's tests."""
    with running_atrium(tmp_path_factory.mktemp("atrium"), "web", "dicom", "worker") as running:
        yield running
