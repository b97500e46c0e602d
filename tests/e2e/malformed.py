"""What a sender may put into the archive though no standard allows it: each object breaks one thing viewers lean on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from io import BytesIO
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    RTStructureSetStorage,
    TwelveLeadECGWaveformStorage,
    generate_uid,
)

from tests.e2e.measurements import measurement_report, written
from tests.factories import make_instance

SIDE, SLICES = 64, 6
ELSEWHERE = "1.2.826.0.404"
Break = Callable[[Dataset], None]


def malformed(study: str) -> Iterator[tuple[str, bytes]]:
    """Give each broken object's name and file; the n-th is ``{study}.{n}.1`` in the series ``{study}.{n}``.

    Series 0 is a sound CT, whose files come first, without a name.
    """
    slices = [pydicom.dcmread(BytesIO(content)) for content in sound(study)]
    for one in slices:
        yield "", written(one)
    for number, (name, dataset) in enumerate(_kinds(study, slices), 1):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.{number}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.{number}.1"
        dataset.PatientID, dataset.SeriesNumber = "BROKEN", number + 10
        if dataset.get("SeriesDescription", "axial") in ("axial", "Measurements"):
            dataset.SeriesDescription = name
        yield name, written(dataset)


def sound(study: str) -> Iterator[bytes]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for number in range(1, SLICES + 1):
        yield make_instance(
            pixels=((rows * 30 + columns * 7 + number * 40) % 2000).astype(np.uint16),
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.0",
            SOPInstanceUID=f"{study}.0.{number}",
            FrameOfReferenceUID=f"{study}.9999",
            PatientID="BROKEN",
            SeriesDescription="sound",
            InstanceNumber=number,
            ImagePositionPatient=[0, 0, number * 4],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[4, 4],
            SliceThickness=4,
            PositionReferenceIndicator="",
            WindowCenter=1000,
            WindowWidth=2000,
        )


def _kinds(study: str, slices: list[Any]) -> Iterator[tuple[str, Any]]:
    report = _report()
    for name, broken in _REPORTS.items():
        yield f"SR {name}", _broken(report, broken)
    measured = pydicom.dcmread(BytesIO(written(measurement_report(slices, generate_uid()))))
    for name, broken in _MEASUREMENTS.items():
        yield f"Measurements {name}", _broken(measured, broken)
    segmentation = _segmentation(slices)
    for name, broken in _SEGMENTATIONS.items():
        yield f"SEG {name}", _broken(segmentation, broken)
    structures = _structures(study, slices)
    for name, broken in _STRUCTURES.items():
        yield f"RTSTRUCT {name}", _broken(structures, broken)
    yield "PR of nothing", _without_pixels(GrayscaleSoftcopyPresentationStateStorage, Modality="PR")
    absent = Dataset()
    absent.SeriesInstanceUID, absent.ReferencedImageSequence = ELSEWHERE, [_reference(ELSEWHERE)]
    yield (
        "PR of images elsewhere",
        _without_pixels(GrayscaleSoftcopyPresentationStateStorage, Modality="PR", ReferencedSeriesSequence=[absent]),
    )
    yield "KO of nothing", _without_pixels(KeyObjectSelectionDocumentStorage, Modality="KO", ValueType="CONTAINER")
    yield "ECG without waveforms", _without_pixels(TwelveLeadECGWaveformStorage, Modality="ECG")
    yield "ECG of nothing", _without_pixels(TwelveLeadECGWaveformStorage, Modality="ECG", WaveformSequence=[Dataset()])
    yield "PDF of nothing", _without_pixels(EncapsulatedPDFStorage, Modality="DOC")
    for name, attributes in _IMAGES.items():
        yield f"Image {name}", pydicom.dcmread(BytesIO(make_instance(**attributes)))


def _broken(sound: Dataset, how: Break) -> Dataset:
    copy = deepcopy(sound)
    how(copy)
    return copy


def _without_pixels(sop_class_uid: str, **attributes: Any) -> Dataset:
    dataset = pydicom.dcmread(BytesIO(make_instance()))
    for keyword in (
        "PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
        "SamplesPerPixel", "PhotometricInterpretation",
    ):  # fmt: skip
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class_uid
    dataset.update(attributes)
    return dataset


def _reference(sop: str, sop_class: str = "1.2.840.10008.5.1.4.1.1.2") -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _item(value_type: str | None, **attributes: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    if value_type is not None:
        item.ValueType = value_type
    item.ConceptNameCodeSequence = [_code("121071", "DCM", "Finding")]
    item.update(attributes)
    return item


def _report() -> Dataset:
    return _without_pixels(
        BasicTextSRStorage,
        Modality="SR",
        ValueType="CONTAINER",
        ContinuityOfContent="SEPARATE",
        ConceptNameCodeSequence=[_code("18748-4", "LN", "Diagnostic Imaging Report")],
        ContentSequence=[_item("TEXT", TextValue="A sound sentence.")],
    )


def _add(*items: Dataset) -> Break:
    def broken(dataset: Dataset) -> None:
        dataset.ContentSequence.extend(items)

    return broken


def _unnamed(value_type: str | None = "TEXT", **attributes: Any) -> Dataset:
    item = _item(value_type, **attributes)
    del item.ConceptNameCodeSequence
    return item


def _without(*keywords: str) -> Break:
    def broken(dataset: Dataset) -> None:
        for keyword in keywords:
            delattr(dataset, keyword)

    return broken


def _set(**attributes: Any) -> Break:
    return lambda dataset: dataset.update(attributes)


def _nested(depth: int) -> Dataset:
    item = _item("TEXT", TextValue="At the end.")
    for _ in range(depth):
        item = _item("CONTAINER", ContentSequence=[item])
    return item


_REPORTS: dict[str, Break] = {
    "item without a name": _add(_unnamed(TextValue="Nameless.")),
    "item with an empty name": _add(_item("TEXT", TextValue="Nameless.", ConceptNameCodeSequence=[])),
    "empty content": _set(ContentSequence=[]),
    "no content": _without("ContentSequence"),
    "empty item": _add(Dataset()),
    "unknown value type": _add(_item("HOLOGRAM", TextValue="?")),
    "no value type": _add(_item(None)),
    "number without a value": _add(_item("NUM"), _item("NUM", MeasuredValueSequence=[Dataset()])),
    "code without a code": _add(_item("CODE"), _item("CODE", ConceptCodeSequence=[])),
    "empty name, date and time": _add(
        _item("PNAME", PersonName=""), _item("DATE", Date=""), _item("TIME", Time=""), _item("DATETIME", DateTime="")
    ),
    "item by reference": _add(_unnamed(None, ReferencedContentItemIdentifier=[1, 1])),
    "no root": _without("ContentSequence", "ValueType", "ConceptNameCodeSequence"),
    "200 containers deep": _add(_nested(200)),
}


def _group(document: Dataset) -> Dataset:
    """Give the measurement group of a TID 1500 report."""
    for item in document.ContentSequence:
        if item.ValueType == "CONTAINER" and item.ConceptNameCodeSequence[0].CodeValue == "126010":
            return item.ContentSequence[0]  # type: ignore[no-any-return]
    raise LookupError


def _in_group(value_type: str, *keywords: str, **attributes: Any) -> Break:
    def broken(document: Dataset) -> None:
        for item in _group(document).ContentSequence:
            if item.ValueType == value_type:
                for keyword in keywords:
                    delattr(item, keyword)
                item.update(attributes)

    return broken


def _only(*value_types: str) -> Break:
    def broken(document: Dataset) -> None:
        group = _group(document)
        group.ContentSequence = [item for item in group.ContentSequence if item.ValueType in value_types]

    return broken


_MEASUREMENTS: dict[str, Break] = {
    "without content": _without("ContentSequence"),
    "nameless": lambda document: delattr(document.ContentSequence[0], "ConceptNameCodeSequence"),
    "of an empty group": lambda document: setattr(_group(document), "ContentSequence", []),
    "without tracking": _only("SCOORD", "NUM"),
    "without a region": _only("TEXT", "UIDREF", "NUM"),
    "without points": _in_group("SCOORD", "GraphicData"),
    "of an unknown shape": _in_group("SCOORD", GraphicType="SPIRAL"),
    "of no image": _in_group("SCOORD", "ContentSequence"),
    "without units": _in_group("NUM", MeasuredValueSequence=[Dataset()]),
    "of images elsewhere": lambda document: (
        [
            setattr(image, "ReferencedSOPSequence", [_reference(ELSEWHERE)])
            for item in _group(document).ContentSequence
            if item.ValueType == "SCOORD"
            for image in item.ContentSequence
        ]
        and None
    ),
}


def _segmentation(slices: list[Any]) -> Dataset:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mask = np.repeat(((rows - 32) ** 2 + (columns - 32) ** 2 < 150)[None], len(slices), axis=0).astype(np.uint8)
    algorithm = hd.seg.SegmentAlgorithmTypeValues.MANUAL
    segment = hd.seg.SegmentDescription(1, "Lesion", codes.SCT.Tissue, codes.SCT.Mass, algorithm)
    segmentation = hd.seg.Segmentation(
        source_images=slices,
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=generate_uid(),
        series_number=20,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="M",
        manufacturer_model_name="M",
        software_versions="1",
        device_serial_number="1",
    )
    return pydicom.dcmread(BytesIO(written(segmentation)))


def _elsewhere(dataset: Dataset) -> None:
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = ELSEWHERE, [_reference(f"{ELSEWHERE}.1")]
    dataset.ReferencedSeriesSequence = [series]


_SEGMENTATIONS: dict[str, Break] = {
    "of nothing": _without("ReferencedSeriesSequence"),
    "of an empty series": _set(ReferencedSeriesSequence=[]),
    "of images elsewhere": _elsewhere,
    "of a series without images": lambda dataset: delattr(
        dataset.ReferencedSeriesSequence[0], "ReferencedInstanceSequence"
    ),
    "without functional groups": _without("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    "with one functional group": lambda dataset: setattr(
        dataset, "PerFrameFunctionalGroupsSequence", dataset.PerFrameFunctionalGroupsSequence[:1]
    ),
    "without segments": _set(SegmentSequence=[]),
    "without a segment sequence": _without("SegmentSequence"),
    "of another size": _set(Rows=32, Columns=32, PixelData=bytes(32 * 32 * SLICES // 8)),
    "without pixels": _without("PixelData", "NumberOfFrames"),
    "without frames": _set(NumberOfFrames=0),
}


def _structures(study: str, slices: list[Any]) -> Dataset:
    frame, referenced, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = slices[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(one.SOPInstanceUID) for one in slices]
    referenced.ReferencedSOPClassUID, referenced.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", study
    referenced.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = slices[0].FrameOfReferenceUID, [referenced]
    roi, observation, drawn, contour = Dataset(), Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ReferencedFrameOfReferenceUID, roi.ROIName = 1, slices[0].FrameOfReferenceUID, "PTV"
    observation.ObservationNumber, observation.ReferencedROINumber, observation.RTROIInterpretedType = 1, 1, "PTV"
    contour.ContourImageSequence = [_reference(slices[0].SOPInstanceUID)]
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
    contour.ContourData = [v for x, y in ((88, 88), (168, 88), (168, 168), (88, 168)) for v in (x, y, 4)]
    drawn.ROIDisplayColor, drawn.ReferencedROINumber, drawn.ContourSequence = [0, 255, 0], 1, [contour]
    return _without_pixels(
        RTStructureSetStorage,
        Modality="RTSTRUCT",
        StructureSetLabel="TARGET",
        ReferencedFrameOfReferenceSequence=[frame],
        StructureSetROISequence=[roi],
        RTROIObservationsSequence=[observation],
        ROIContourSequence=[drawn],
    )


def _of_frame(change: Callable[[Dataset], None]) -> Break:
    return lambda dataset: change(dataset.ReferencedFrameOfReferenceSequence[0])


_STRUCTURES: dict[str, Break] = {
    "without a frame of reference": _without("ReferencedFrameOfReferenceSequence"),
    "of no study": _of_frame(_without("RTReferencedStudySequence")),
    "of no series": _of_frame(_set(RTReferencedStudySequence=[Dataset()])),
    "of no images": _of_frame(
        lambda frame: delattr(frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0], "ContourImageSequence")
    ),
    "of images elsewhere": _of_frame(
        lambda frame: setattr(
            frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0], "SeriesInstanceUID", ELSEWHERE
        )
    ),
    "without contours": _without("ROIContourSequence"),
    "without regions": _without("StructureSetROISequence"),
    "of an unknown region": lambda dataset: setattr(dataset.ROIContourSequence[0], "ReferencedROINumber", 7),
    "of two thirds of a point": lambda dataset: setattr(
        dataset.ROIContourSequence[0].ContourSequence[0], "ContourData", [1, 2]
    ),
    "of an empty contour": lambda dataset: setattr(dataset.ROIContourSequence[0], "ContourSequence", [Dataset()]),
}

_IMAGES: dict[str, dict[str, Any]] = {
    "of one spacing": {"PixelSpacing": 4},
    "with two coordinates": {"ImagePositionPatient": [1, 2], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    "with half an orientation": {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0]},
    "with an orientation of zeros": {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [0] * 6},
    "described twice": {"SeriesDescription": ["one", "two"]},
    "without modality, number and description": {"Modality": "", "InstanceNumber": None, "SeriesDescription": ""},
    "without a window's width": {"WindowCenter": [40, 50], "WindowWidth": None},
    "of a window without width": {"WindowCenter": 40, "WindowWidth": 0},
    "of slope zero": {"RescaleSlope": 0, "RescaleIntercept": 0},
    "of no photometric interpretation": {"PhotometricInterpretation": ""},
}
