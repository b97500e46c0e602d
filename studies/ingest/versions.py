"""What is already kept under a SOP Instance UID."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from studies.archive import objects
from studies.ingest.incoming import Incoming
from studies.models import Instance

# Study Instance UID, SOP Instance UID, and the site's key.
Place = tuple[str, str, int]


@dataclass(frozen=True)
class Version:
    """One of the instances that came under a UID."""

    number: int
    sha256: bytes
    dataset_sha256: bytes
    object_key: str
    dataset_begin: int
    dataset_length: int
    pk: int | None = None

    def holds(self, file: Incoming) -> bool:
        """Say whether this version's data set is the file's, whatever their file meta information says."""
        if self.sha256 == file.sha256:
            return True
        if self.dataset_length != file.staged.size - file.structure.dataset_offset:
            return False
        mine = self.dataset_sha256 or objects.digest(self.object_key, self.dataset_begin, self.dataset_length)
        return mine == file.dataset_digest()

    def is_there(self) -> bool:
        """Say whether storage still has what the index names, to its last byte."""
        return objects.reaches(self.object_key, self.dataset_begin + self.dataset_length)


def version_to_be(file: Incoming, number: int) -> Version:
    """Give a file that's being indexed as a version."""
    begin, size = file.structure.dataset_offset, file.staged.size
    return Version(
        number,
        file.sha256,
        file.staged.dataset_sha256,
        file.object_key,
        file.staged.offset + begin,
        size - begin,
    )


def versions_at(places: Collection[Place]) -> dict[Place, list[Version]]:
    """Give what is kept at each of the places, for those where something is."""
    rows = Instance.objects.filter(
        sop_instance_uid__in={uid for _, uid, _ in places}, series__study__site__in={site for *_, site in places}
    ).select_related("series__study")
    found: dict[Place, list[Version]] = {}
    for row in rows:
        study = row.series.study
        place = (study.study_instance_uid, row.sop_instance_uid, study.site_id)
        if place in places:
            version = Version(
                row.version,
                bytes(row.sha256),
                bytes(row.dataset_sha256),
                row.object_key,
                row.object_offset + row.dataset_offset,
                row.object_length - row.dataset_offset,
                row.pk,
            )
            found.setdefault(place, []).append(version)
    return found
