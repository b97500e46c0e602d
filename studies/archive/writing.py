"""Parts of a Part 10 file, written apart, so that pixels can follow a new header without passing through memory."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from studies.archive.errors import NotTranscodable

# Sizes of the words that pydicom doesn't turn when the byte order changes.
WORDS = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}


def file_head(meta: FileMetaDataset) -> bytes:
    """Give preamble, prefix and file meta information (PS3.10 §7.1)."""
    buffer = BytesIO()
    # Any value: the right one is written in its place.
    meta.FileMetaInformationGroupLength = 0
    write_file_meta_info(buffer, meta, enforce_standard=False)  # type: ignore[arg-type]
    return b"\0" * 128 + b"DICM" + buffer.getvalue()


def dataset_bytes(dataset: Dataset, syntax: str, *, character_set: str = "ISO_IR 6") -> bytes:
    """Give the data set in the transfer syntax's encoding, not deflated. Raises NotTranscodable.

    ``character_set`` is of a part of a data set that doesn't name its own.
    """
    buffer = DicomBytesIO()
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    try:
        write_dataset(buffer, dataset, character_set)
    except Exception as error:  # pydicom raises what it will on hostile values
        raise NotTranscodable("The data set holds a value that can't be written.") from error
    content: bytes = buffer.getvalue()
    return content


def turn_words(dataset: Dataset, syntax: str) -> None:
    """Turn the binary words of a big-endian data set, in place, so that it can be written as little endian."""
    if UID(syntax) != ExplicitVRBigEndian:
        return
    for element in _all_elements(dataset):
        size = WORDS.get(element.VR)
        if size is not None and isinstance(element.value, bytes) and len(element.value) % size == 0:
            element.value = np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()


def _all_elements(dataset: Dataset) -> Iterator[DataElement]:
    """Give every element, those of sequences too. Raises NotTranscodable."""
    try:
        yield from dataset.iterall()
    except Exception as error:  # pydicom raises what it will on hostile values
        raise NotTranscodable("The data set holds a value that can't be read.") from error
