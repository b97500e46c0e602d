"""Some frames of a multi-frame instance as an instance of its own (PS3.4 Annex Y), made on the way out, not stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID, MPEGTransferSyntaxes, generate_uid

from studies.archive.errors import FramesNotFound, NotMultiframe, NotTimed, NotTranscodable
from studies.archive.frames import Frames
from studies.archive.transcoding import NATIVE_TARGETS, can_transcode, file_of_frames
from studies.models import Instance

# What no longer holds once frames are left out.
NOT_KEPT = ("DigitalSignaturesSequence", "MACParametersSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")
OVERLAY_GROUPS, MULTI_FRAME_OVERLAY = range(0x6000, 0x601F, 2), 0x0015


@dataclass(frozen=True)
class Selection:
    """Which frames are wanted, by the one of the three attributes that a request may have (PS3.4 Table Y.3-3)."""

    simple: tuple[int, ...] = ()
    calculated: tuple[tuple[int, int, int], ...] = ()
    seconds: tuple[float, float] | None = None

    def numbers_in(self, header: Dataset, count: int) -> list[int]:
        """Give the numbers, from 1, of those of the frames that exist. Raises NotTimed."""
        if self.seconds is not None:
            begin, end = self.seconds
            return [n for n, at in enumerate(_times(header, count), start=1) if begin <= at / 1000 <= end]
        wanted = set(self.simple)
        for first, last, step in self.calculated:
            wanted.update(range(first, min(last, count) + 1, step))
        return sorted(n for n in wanted if n <= count)

    def as_item(self) -> Dataset:
        """Give the item's part that says how the frames were chosen (PS3.3 C.12.3)."""
        item = Dataset()
        if self.seconds is not None:
            item.TimeRange = list(self.seconds)
        elif self.calculated:
            item.CalculatedFrameList = [part for triplet in self.calculated for part in triplet]
        else:
            item.SimpleFrameList = list(self.simple)
        return item


def _times(header: Dataset, count: int) -> list[float]:
    """Give when each frame was made, in milliseconds from the content time. Raises NotTimed."""
    delay = float(header.get("FrameDelay") or 0)
    vector = _values(header.get("FrameTimeVector"))
    if len(vector) == count:
        return [delay + passed for passed in accumulate(float(step) for step in vector)]
    if header.get("FrameTime"):
        return [delay + n * float(header.FrameTime) for n in range(count)]
    raise NotTimed


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


class Extraction(Frames):
    """The chosen frames, as an instance with a UID of its own: the same request gives the same UID.

    Raises NotMultiframe, FramesNotFound, NotTimed, NotTranscodable for a video, ObjectMissing.
    """

    def __init__(self, instance: Instance, selection: Selection) -> None:
        super().__init__(instance)
        self.source = Frames(instance)
        self.selection = selection
        if "NumberOfFrames" not in self.source.header or not instance.number_of_frames:
            raise NotMultiframe
        if UID(instance.transfer_syntax_uid) in MPEGTransferSyntaxes:
            raise NotTranscodable("A video is one stream, however many pictures it shows.")
        self.numbers = selection.numbers_in(self.source.header, len(self.source))
        if not self.numbers:
            raise FramesNotFound
        self.sop_instance_uid = generate_uid(
            entropy_srcs=[instance.sop_instance_uid, bytes(instance.sha256).hex(), repr(selection)]
        )

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def header(self) -> Dataset:
        """The source's data set without pixels, narrowed to the chosen frames."""
        header = Frames(self.instance).header
        count = len(self.source)
        for keyword in NOT_KEPT:
            header.pop(keyword, None)
        for group in OVERLAY_GROUPS:
            if (group, MULTI_FRAME_OVERLAY) in header:
                for tag in [element.tag for element in header.group_dataset(group)]:
                    del header[tag]
        self._narrow_times(header, count)
        for pointer in _values(header.get("FrameIncrementPointer")):
            keyword = keyword_for_tag(pointer)
            values = _values(header.get(keyword)) if keyword and keyword != "FrameTimeVector" else []
            if len(values) == count:
                setattr(header, keyword, [values[n - 1] for n in self.numbers])
        groups = header.get("PerFrameFunctionalGroupsSequence") or []
        if len(groups) == count:
            header.PerFrameFunctionalGroupsSequence = [groups[n - 1] for n in self.numbers]
        header.NumberOfFrames = len(self)
        item = self.selection.as_item()
        item.MultiFrameSourceSOPInstanceUID = self.instance.sop_instance_uid
        header.FrameExtractionSequence = [*(header.get("FrameExtractionSequence") or []), item]
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID(self.sop_instance_uid)
        return header

    def _narrow_times(self, header: Dataset, count: int) -> None:
        """Tell the time from frame to frame anew: what lay between them is gone."""
        try:
            times = [_times(header, count)[n - 1] for n in self.numbers]
        except NotTimed:
            return
        header.FrameDelay = times[0]
        steps = [0.0, *(later - earlier for earlier, later in pairwise(times))]
        if "FrameTime" in header and "FrameTimeVector" not in header and len({round(s, 6) for s in steps[1:]}) <= 1:
            header.FrameTime = steps[1] if len(steps) > 1 else header.FrameTime
            return
        header.pop("FrameTime", None)
        header.FrameTimeVector = steps
        if "FrameIncrementPointer" in header:
            header.FrameIncrementPointer = 0x00181065  # FrameTimeVector

    @cached_property
    def trailer(self) -> Dataset:
        """Nothing: what follows the pixels, signatures mostly, was said of all frames."""
        return Dataset()

    def stored(self, number: int) -> bytes:
        return self.source.stored(self.numbers[number - 1])

    def samples(self, number: int) -> tuple[np.ndarray, object]:  # type: ignore[override]
        return self.source.samples(self.numbers[number - 1])

    def little_endian(self, number: int) -> bytes:
        return self.source.little_endian(self.numbers[number - 1])

    def native_pixels(self) -> Iterator[bytes]:
        if self.form.bits_allocated != 1:
            yield from (self.little_endian(number) for number in range(1, len(self) + 1))
            return
        # Frames of single bits follow one another without a gap (PS3.5 §8.1.1).
        frames = [np.frombuffer(self.stored(number), np.uint8) for number in range(1, len(self) + 1)]
        joined = np.concatenate([np.unpackbits(f, bitorder="little")[: self._frame_bits] for f in frames])
        yield np.packbits(joined, bitorder="little").tobytes()

    def file(self, transfer_syntax_uid: str) -> Iterator[bytes]:
        """Give the Part 10 file in chunks. Raises NotTranscodable, ObjectMissing."""
        return file_of_frames(self, UID(transfer_syntax_uid))


def syntaxes_of(instance: Instance, accepted: Sequence[str]) -> list[str]:
    """Give those of the accepted transfer syntaxes in which frames of the instance can be given, its own first."""
    stored = instance.transfer_syntax_uid
    fitting = [s for s in accepted if s in NATIVE_TARGETS or s == stored]
    return sorted((s for s in fitting if can_transcode(stored, s)), key=lambda s: s != stored)
