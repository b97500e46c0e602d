"""What the tests of retrieval share: addresses, bodies and parts of answers, objects that aren't images."""

from __future__ import annotations

from email import message_from_bytes
from io import BytesIO
from typing import Any

import av
import numpy as np
import pydicom
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    MPEG4HP41,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    RLELossless,
    VideoEndoscopicImageStorage,
    generate_uid,
)

from studies.models import Instance
from tests.factories import make_instance

STUDY, SERIES = "1.2.3", "1.2.3.4"
UIDS = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}
PIXELS = np.random.default_rng(4).integers(0, 4096, (3, 32, 40)).astype(np.uint16)


def address(instance: Instance, below: str = "") -> str:
    series = instance.series
    return (
        f"/dicom-web/studies/{series.study.study_instance_uid}/series/{series.series_instance_uid}"
        f"/instances/{instance.sop_instance_uid}{below}"
    )


def body_of(response: Any) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


def parts_of(response: Any) -> list[tuple[str, bytes]]:
    """Split a multipart answer by an independent parser."""
    message = message_from_bytes(
        b"Content-Type: " + response["Content-Type"].encode() + b"\r\n\r\n" + body_of(response)
    )
    return [(part["Content-Type"], part.get_payload(decode=True)) for part in message.get_payload()]  # type: ignore


def as_file(dataset: Dataset, sop_class: str, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Give a Part 10 file of a data set, with what identifies it added."""
    defaults: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": sop_class,
        "SOPInstanceUID": generate_uid(),
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "Modality": "OT",
        "InstanceNumber": 1,
        **UIDS,
        "SeriesInstanceUID": f"{SERIES}.9",
    }
    for keyword, value in defaults.items():
        if keyword not in dataset:
            setattr(dataset, keyword, value)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    file = FileDataset(None, dataset, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


def make_rle(number: int, *, damaged: tuple[int, ...] = (), pixels: Any = PIXELS, **values: Any) -> bytes:
    """Give an instance of compressed frames, of which some can't be decoded."""
    dataset = pydicom.dcmread(BytesIO(make_instance(**{**UIDS, **values}, pixels=pixels, InstanceNumber=number)))
    dataset.compress(RLELossless, generate_instance_uid=False)
    frames = generate_frames(dataset.PixelData, number_of_frames=len(pixels))
    dataset.PixelData = encapsulate(
        [b"no segments at all" if n in damaged else frame for n, frame in enumerate(frames, 1)]
    )
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def make_pdf_object(pdf: bytes) -> bytes:
    dataset = Dataset()
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    dataset.EncapsulatedDocumentLength = len(pdf)
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    return as_file(dataset, EncapsulatedPDFStorage)


def make_video(
    pictures: int = 12, *, container_format: str = "mp4", codec: str = "libx264", syntax: str = MPEG4HP41
) -> tuple[bytes, bytes]:
    """Give a video stream that turns from dark to bright, and the DICOM object that holds it."""
    output = BytesIO()
    with av.open(output, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(pictures):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 20, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    mp4 = output.getvalue()
    dataset = Dataset()
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pictures, 48, 64
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "YBR_PARTIAL_420"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PlanarConfiguration = 0
    dataset.PixelData = encapsulate([mp4])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return mp4, as_file(dataset, VideoEndoscopicImageStorage, syntax)


def make_presentation_state(image: Instance, **keywords: Any) -> bytes:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    series = Dataset()
    series.SeriesInstanceUID = image.series.series_instance_uid
    series.ReferencedImageSequence = [reference]
    dataset = Dataset()
    dataset.Modality = "PR"
    dataset.ReferencedSeriesSequence = [series]
    dataset.PresentationLUTShape = "IDENTITY"
    for keyword, value in keywords.items():
        setattr(dataset, keyword, value)
    return as_file(dataset, GrayscaleSoftcopyPresentationStateStorage)
