"""Coercion of attributes, in what is sent or shown, with its trace (PS3.4 §C.4.2.1.4.1, PS3.3 C.12.1.1.9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

from django.utils import timezone
from pydicom import DataElement, Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.sequence import Sequence
from pydicom.valuerep import STR_VR, validate_value

# What names or describes the object itself or its pixels stays.
NOT_COERCIBLE = {
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SpecificCharacterSet",
    "PixelData",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "PlanarConfiguration",
}
ACTIONS = ("set", "remove", "prefix", "replace")


class InvalidCoercion(ValueError):
    """The coercion can't be done; the message says why."""


@dataclass(frozen=True)
class Coercion:
    """Set, remove or prefix one attribute, or replace a text in it (``value`` becomes ``replacement``)."""

    action: str
    attribute: str
    value: str = ""
    replacement: str = ""

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Coercion:
        """Read what a rule keeps and check it. Raises InvalidCoercion."""
        coercion = cls(
            action=str(kept.get("action", "")),
            attribute=str(kept.get("attribute", "")),
            value=str(kept.get("value", "")),
            replacement=str(kept.get("replacement", "")),
        )
        coercion.check()
        return coercion

    def check(self) -> None:
        """Raise InvalidCoercion where the action or the attribute isn't known, or the value isn't one of its VR."""
        if self.action not in ACTIONS:
            raise InvalidCoercion(f"“{self.action}” is no action.")
        tag = tag_for_keyword(self.attribute)
        if tag is None or not dictionary_has_tag(tag):
            raise InvalidCoercion(f"“{self.attribute}” is no attribute's keyword.")
        vr = dictionary_VR(tag)
        if self.attribute in NOT_COERCIBLE or vr not in STR_VR or vr == "UI":
            raise InvalidCoercion(f"{self.attribute} may not be coerced.")
        if self.action != "remove" and not self.value:
            raise InvalidCoercion(f"{self.attribute}: a value is needed.")
        if self.action in {"set", "prefix"}:
            try:
                validate_value(vr, self.value, RAISE)
            except ValueError as error:
                raise InvalidCoercion(f"{self.attribute}: “{self.value}” is no value of it ({vr}).") from error

    def as_kept(self) -> dict[str, str]:
        """Give it as a rule keeps it."""
        return asdict(self)

    def current_in(self, attributes: Mapping[str, Any]) -> str:
        """Give the attribute's text in DICOM JSON (PS3.18 §F.2), empty where it isn't there."""
        element = attributes.get(f"{tag_for_keyword(self.attribute) or 0:08X}", {})
        values = [v.get("Alphabetic", "") if isinstance(v, dict) else str(v) for v in element.get("Value") or []]
        return "\\".join(values)

    def result_on(self, current: str) -> str:
        """Give the new text for the current one."""
        if self.action == "set":
            return self.value
        if self.action == "prefix":
            return current if current.startswith(self.value) else self.value + current
        if self.action == "replace":
            return current.replace(self.value, self.replacement)
        return ""


def coerce(
    dataset: Dataset, coercions: Iterable[Coercion], *, modifying_system: str, keeps_trace: bool = True
) -> Dataset:
    """Coerce a data set in place and give it; what was replaced goes to its Original Attributes Sequence."""
    before = Dataset()
    for coercion in coercions:
        tag = tag_for_keyword(coercion.attribute)
        assert tag is not None
        element = dataset.get(tag)
        current = _text(element)
        result = coercion.result_on(current)
        if result == current and not (coercion.action == "remove" and element is not None):
            continue
        if tag not in before:
            before[tag] = deepcopy(element) if element is not None else DataElement(tag, dictionary_VR(tag), None)
        if coercion.action == "remove":
            dataset.pop(tag, None)
        else:
            dataset[tag] = DataElement(tag, dictionary_VR(tag), _value(tag, result))
            if not result.isascii() and dataset.get("SpecificCharacterSet", "") != "ISO_IR 192":
                dataset.decode()
                dataset.SpecificCharacterSet = "ISO_IR 192"
    if before and keeps_trace:
        trace = Dataset()
        trace.ModifiedAttributesSequence = Sequence([before])
        trace.AttributeModificationDateTime = f"{timezone.now():%Y%m%d%H%M%S.%f}+0000"
        trace.ModifyingSystem = modifying_system
        trace.SourceOfPreviousValues = None
        trace.ReasonForTheAttributeModification = "COERCE"
        dataset.OriginalAttributesSequence = [*dataset.get("OriginalAttributesSequence", []), trace]
    return dataset


def _text(element: DataElement | None) -> str:
    if element is None or element.value is None:
        return ""
    value = element.value
    if not isinstance(value, str) and hasattr(value, "__iter__") and not hasattr(value, "components"):
        return "\\".join(str(one) for one in value)
    return str(value)


def _value(tag: int, text: str) -> Any:
    return text.split("\\") if "\\" in text and dictionary_VM(tag) != "1" else text
