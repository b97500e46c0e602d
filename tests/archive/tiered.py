"""What tests of the tiers share: a cold tier, where objects lie, moves that are worked off."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from portal.environment import object_storage
from studies.archive import objects, recalls, tiers
from studies.archive.models import TierMove
from studies.models import Instance, Study
from tests.services.s3 import s3_bucket

HOT, COLD = Study.Tier.HOT, Study.Tier.COLD


@contextmanager
def cold_tier(settings: Any, kind: str, tmp_path: Path) -> Iterator[None]:
    """Configure a cold tier: a folder, or a bucket of a server over real HTTP."""
    recalls.forget_told()
    if kind == "s3":
        with s3_bucket() as url:
            settings.STORAGES = {**settings.STORAGES, "cold": object_storage(url)}
            yield
        return
    (tmp_path / "cold").mkdir()
    settings.STORAGES = {**settings.STORAGES, "cold": object_storage(str(tmp_path / "cold"))}
    yield


def where(instance: Instance) -> set[str]:
    """Give the tiers in which an instance's object lies whole."""
    return {t.value for t in (HOT, COLD) if objects.reaches(instance.object_key, instance.object_length, t)}


def lies(study: Study | None = None) -> set[str]:
    """Give the tiers in which objects of the study, or of all, lie, as one word each: ``hot``, ``cold``, ``both``."""
    instances = Instance.objects.all() if study is None else Instance.objects.filter(series__study=study)
    return {"both" if len(found := where(i)) == 2 else "".join(found) or "lost" for i in instances}


def assert_all_is_there() -> None:
    """Read every instance by the archive's own way and compare it with its SHA-256."""
    for instance in Instance.objects.all():
        assert hashlib.sha256(objects.read_instance(instance)).digest() == bytes(instance.sha256)


def move(study: Study, tier: Study.Tier) -> TierMove:
    """Move the study now and give the move as it ended."""
    asked = tiers.request_move(study=study, tier=tier, origin=TierMove.Origin.PERSON)
    assert asked is not None
    tiers.work_off()
    asked.refresh_from_db()
    study.refresh_from_db()
    return asked
