"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
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
from django.core.cache import caches
from django.db import connection
from django.test import Client

from accounts import credentials
from accounts.models import Site, User
from accounts.services import create_api_token
from portal.audit import services as audit_services
from studies.ingest.services import Outcome
from tests.factories import SHARED, ingest_as, make_people, principal_of
from tests.remembered import Remembered
from tests.services.atrium import Atrium, running_atrium
from tests.services.migrated import migrated


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> Iterator[None]:
    """Begin with the tables in place: to migrate takes longer than most files of tests."""
    if connection.vendor != "sqlite":
        yield
        return
    in_memory = connection.creation._get_test_db_name()
    with closing(sqlite3.connect(in_memory, uri=True)) as kept:
        with closing(sqlite3.connect(migrated())) as made:
            made.backup(kept)
        yield


@pytest.fixture(autouse=True)
def _forget_recorded_viewing() -> Iterator[None]:
    audit_services.forget_recorded()
    credentials.forget_all()
    # Studies of other tests had the same keys.
    for alias in settings.CACHES:
        caches[alias].clear()
    yield
    audit_services.forget_recorded()


@pytest.fixture(autouse=True)
def _objects_of_this_test_only(tmp_path: Path, settings: settings) -> None:
    storages = {alias: dict(options) for alias, options in settings.STORAGES.items()}
    storages["objects"]["OPTIONS"] = {"location": str(tmp_path / "objects")}
    storages["quarantine"]["OPTIONS"] = {"location": str(tmp_path / "quarantine")}
    settings.STORAGES = storages
    settings.STAGING_ROOT = tmp_path / "staging"
    settings.PLACING_ROOT = tmp_path / "placing"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, those with a browser, then those with servers: no core waits for one at the end."""
    items.sort(key=_briefness)


def _briefness(item: pytest.Item) -> int:
    if "e2e" in item.path.parts:
        return 0
    is_served = "atrium" in item.fixturenames or "running_atrium" in vars(item.module)  # type: ignore[attr-defined]
    return 1 if is_served else 2


def _by_slug() -> dict[str, Site]:
    return {site.slug: site for site in Site.objects.order_by("pk")}


SITES = Remembered(
    lambda: [Site.objects.create(slug=slug, name=f"{slug.title()} Hospital") for slug in ("north", "south")]
)
PEOPLE = Remembered(lambda: make_people(_by_slug()))


@pytest.fixture
def sites(db: None) -> dict[str, Site]:
    SITES.put()
    return _by_slug()


@pytest.fixture
def north(sites: dict[str, Site]) -> Site:
    return sites["north"]


@pytest.fixture
def south(sites: dict[str, Site]) -> Site:
    return sites["south"]


@pytest.fixture
def people(sites: dict[str, Site]) -> dict[str, User]:
    PEOPLE.put()
    return {user.username: user for user in User.objects.order_by("pk")}


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
