"""An instance on its way out: as stored where the node takes that, else in a transfer syntax that it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from studies.archive import transcoding
from studies.archive.deidentification import Deidentifier, NotDeidentifiable
from studies.archive.errors import NotTranscodable, ObjectMissing
from studies.dimse.coercion import Coercion, coerce
from studies.dimse.errors import NotSendable
from studies.ingest.services import StagedFile, stage
from studies.models import Instance

# Of what a node takes, what it's given where it doesn't take the stored form: plain pixels first.
PREFERRED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@dataclass
class Outgoing:
    """One instance with what is to be changed in the copy that leaves. The stored object stays as it is."""

    instance: Instance
    coercions: list[Coercion] = field(default_factory=list)
    deidentifier: Deidentifier | None = None
    allows_lossy: bool = False
    modifying_system: str = ""
    item: Any = None

    @property
    def is_changed(self) -> bool:
        return bool(self.coercions) or self.deidentifier is not None

    def syntax_for(self, accepted: Iterable[str]) -> str:
        """Give which of the accepted transfer syntaxes it's sent in. Raises NotSendable when none fits."""
        taken = [str(syntax) for syntax in accepted]
        stored = self.instance.transfer_syntax_uid
        if stored in taken:
            return stored
        for syntax in sorted(taken, key=lambda s: PREFERRED.index(s) if s in PREFERRED else len(PREFERRED)):
            if transcoding.can_transcode(stored, syntax, allow_lossy=self.allows_lossy):
                return syntax
        raise NotSendable(f"The node doesn't read {pydicom.uid.UID(stored).name}, and it can't be converted for it.")

    def staged_as(self, transfer_syntax_uid: str) -> StagedFile:
        """Write the Part 10 file to be sent to the staging folder; the caller removes it. Raises NotSendable."""
        try:
            staged = stage(
                transcoding.transcoded_file(self.instance, transfer_syntax_uid, allow_lossy=self.allows_lossy)
            )
        except NotTranscodable as error:
            raise NotSendable(str(error)) from error
        except ObjectMissing as error:
            raise NotSendable("The archive's copy can't be read.") from error
        if self.is_changed:
            try:
                self._change(staged.path)
            except NotDeidentifiable as error:
                staged.path.unlink(missing_ok=True)
                raise NotSendable(f"Not de-identifiable: {error}") from error
            except BaseException:
                staged.path.unlink(missing_ok=True)
                raise
        return StagedFile(staged.path, staged.path.stat().st_size)

    def _change(self, path: Path) -> None:
        dataset: FileDataset = pydicom.dcmread(path)
        if self.deidentifier is not None:
            self.deidentifier.apply(dataset)
        coerce(dataset, self.coercions, modifying_system=self.modifying_system, keeps_trace=self.deidentifier is None)
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
