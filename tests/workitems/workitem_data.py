"""Makes workitems' data sets for tests, as DICOM JSON."""

from __future__ import annotations

from typing import Any

from pydicom import Dataset

TRANSACTION = "1.2.826.0.1.3680043.8.498.4711"


def code(value: str, scheme: str = "99TEST", meaning: str = "meant") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def scheduled(**keywords: Any) -> Dataset:
    """Give a workitem that can be created; keywords override or add attributes, None removes one."""
    request = Dataset()
    request.AccessionNumber, request.RequestedProcedureID = "ACC7", "RP7"
    defaults: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ScheduledProcedureStepPriority": "MEDIUM",
        "ProcedureStepLabel": "Segment the liver",
        "WorklistLabel": "AI",
        "ScheduledProcedureStepStartDateTime": "20260901101500",
        "InputReadinessState": "READY",
        "ScheduledStationNameCodeSequence": [code("GPU1")],
        "ScheduledWorkitemCodeSequence": [code("110005", "DCM", "Interpretation")],
        "ScheduledProcessingParametersSequence": [],
        "InputInformationSequence": [],
        "PatientName": "Müller^Jörg",
        "PatientID": "P7",
        "PatientBirthDate": "19700102",
        "PatientSex": "M",
        "StudyInstanceUID": "1.2.3.4",
        "AdmissionID": "",
        "ReferencedRequestSequence": [request],
        "ProcedureStepState": "SCHEDULED",
        "ProcedureStepProgressInformationSequence": [],
        "UnifiedProcedureStepPerformedProcedureSequence": [],
    }
    dataset = Dataset()
    for keyword, value in {**defaults, **keywords}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def performed() -> Dataset:
    """Give what a performer must tell before a workitem may be COMPLETED."""
    item = Dataset()
    item.PerformedStationNameCodeSequence = [code("GPU1")]
    item.PerformedWorkitemCodeSequence = [code("110005", "DCM", "Interpretation")]
    item.PerformedProcedureStepStartDateTime = "20260901101600"
    item.PerformedProcedureStepEndDateTime = "20260901101700"
    item.OutputInformationSequence = []
    dataset = Dataset()
    dataset.UnifiedProcedureStepPerformedProcedureSequence = [item]
    return dataset


def discontinued() -> Dataset:
    """Give what a performer must tell before a workitem may be CANCELED."""
    item = Dataset()
    item.ProcedureStepCancellationDateTime = "20260901101700"
    item.ProcedureStepDiscontinuationReasonCodeSequence = [code("110513", "DCM")]
    dataset = Dataset()
    dataset.ProcedureStepProgressInformationSequence = [item]
    return dataset
