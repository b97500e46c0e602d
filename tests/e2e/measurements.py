"""A measurement of another maker, as TID 1500 has it."""

from __future__ import annotations

from io import BytesIO

import highdicom as hd
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid


def written(dataset: pydicom.Dataset) -> bytes:
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def measurement_report(slices: list[pydicom.Dataset], series_instance_uid: str) -> pydicom.Dataset:
    """Give a TID 1500 report of another maker, with a line of 160 mm on the fourth image."""
    line = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array([[12.0, 32.0], [52.0, 32.0]]),
        source_image=hd.sr.SourceImageForRegion.from_source_image(slices[3]),
    )
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=generate_uid(), identifier="Line"),
        referenced_region=line,
        measurements=[hd.sr.Measurement(name=codes.SCT.Length, value=160.0, unit=codes.UCUM.Millimeter)],
    )
    observer = hd.sr.ObserverContext(codes.DCM.Person, hd.sr.PersonObserverIdentifyingAttributes(name="Other^Maker"))
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_person_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    document = hd.sr.ComprehensiveSR(
        evidence=[slices[3]],
        content=report,
        series_instance_uid=series_instance_uid,
        series_number=60,
        sop_instance_uid=f"{series_instance_uid}.1",
        instance_number=1,
        manufacturer="M",
    )
    document.SeriesDescription = "Measurements"
    return document
