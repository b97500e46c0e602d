"""Templates as RadReport/MRRT HTML (IHE RAD Management of Radiology Report Templates, TF-3 §8).

Only what the profile names is read: sections, fields and their attributes, Dublin Core terms, and the coded content,
which is kept as XML. Everything else in the file, scripts and styles among it, is left behind: the file's HTML is
never shown, the desk is drawn from our own tree.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from tinyhtml5.parser import HTMLParser

from studies.reports.models import ReportTemplate
from studies.reports.outline import MOST_FIELDS, Field, Outline, parsed_date, parsed_number

LARGEST = 1 << 20
MOST_ELEMENTS = 20_000
DEEPEST = 60
MOST_ATTRIBUTES = 200
_TERMS = re.compile(r"dcterms\.[a-z]{2,20}", re.IGNORECASE)
_NOT_ID = re.compile(r"[^A-Za-z0-9_.-]+")
_ROLE_WORDS = (
    ("impression", ("impression", "conclusion", "beurteilung", "summary")),
    ("comparison", ("comparison", "previous", "prior", "vergleich")),
    ("technique", ("technique", "procedure", "technik", "protocol")),
    ("indication", ("indication", "clinical", "history", "reason", "request")),
    ("findings", ("finding", "observation", "befund", "result")),
)
_CONDITION = "data-atrium-show-if"
_CONDITION_VALUES = "data-atrium-show-if-values"

# Which studies a template is for, and how much a file may say of each.
_STUDIES = ("modalities", "body_parts", "keywords")
_LONGEST_WORDS = 500


class NotATemplate(ValueError):
    """The file isn't an MRRT template; the message says why, for the person."""


@dataclass
class Imported:
    """What an MRRT file holds."""

    name: str
    description: str
    language: str
    content: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    coded_content: str = ""
    procedure_codes: list[dict[str, str]] = field(default_factory=list)
    modalities: list[str] = field(default_factory=list)
    body_parts: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)
    # How many fields lie in no section, where MRRT has them.
    left_out: int = 0

    def as_template(self) -> dict[str, Any]:
        """Give what ``templates.save_template`` takes of it."""
        return {name: value for name, value in self.__dict__.items() if name != "left_out"}


class _Parser(HTMLParser):  # type: ignore[misc]
    """Stops at an element with masses of attributes, whose comparison takes the square of their number."""

    def reset(self) -> None:
        super().reset()
        tokenizer = self.tokenizer
        usual = tokenizer.attribute_name_state

        def counted() -> bool:
            if len(tokenizer.current_token["data"]) > MOST_ATTRIBUTES:
                raise NotATemplate("The file has too many attributes at an element for a template.")
            return bool(usual())

        tokenizer.attribute_name_state = counted


def read_template(document: bytes) -> Imported:
    """Read an MRRT file. Raises NotATemplate, InvalidOutline."""
    if len(document) > LARGEST:
        raise NotATemplate("The file is too large for a template: at most 1 MB.")
    try:
        root = _Parser(namespace_html_elements=False).parse(document, default_encoding="utf-8")
    except NotATemplate:
        raise
    except (ValueError, RecursionError, LookupError) as error:
        raise NotATemplate("The file can't be read as HTML.") from error
    elements = [e for e in root.iter() if isinstance(e.tag, str)]
    if len(elements) > MOST_ELEMENTS:
        raise NotATemplate("The file has too many elements for a template.")
    file = _File.of(root, elements)
    metadata = {
        name.lower(): (e.get("content") or "")[:1000]
        for e in elements
        if e.tag == "meta" and _TERMS.fullmatch(name := e.get("name") or "")
    }
    title = next((_words(e) for e in elements if e.tag == "title"), "")
    coded = _coded_content(elements)
    sections = _sections(file)
    if not sections:
        raise NotATemplate("The file has no section with fields.")
    outline = Outline.of({"sections": sections})
    return Imported(
        name=(metadata.get("dcterms.title") or title or "Imported template")[:120],
        description=metadata.get("dcterms.description", "")[:500],
        language=(metadata.get("dcterms.language") or root.get("lang") or "en")[:16],
        content=outline.as_json(),
        metadata=metadata,
        coded_content=coded,
        procedure_codes=_procedure_codes(coded),
        left_out=sum(1 for one in file.fields if one not in file.sections),
        **_studies(elements),
    )


def write_template(template: ReportTemplate) -> bytes:
    """Give the template as an MRRT file."""
    html = ElementTree.Element("html", {"lang": template.language})
    head = ElementTree.SubElement(html, "head")
    ElementTree.SubElement(head, "meta", {"charset": "UTF-8"})
    ElementTree.SubElement(head, "title").text = template.name
    terms = {
        **template.metadata,
        "dcterms.title": template.name,
        "dcterms.description": template.description,
        "dcterms.identifier": template.metadata.get("dcterms.identifier") or f"urn:uuid:{template.family}",
        "dcterms.language": template.language,
        "dcterms.type": "IMAGE_REPORT_TEMPLATE",
        "dcterms.date": f"{template.created_at:%Y-%m-%d}",
    }
    for name, content in sorted(terms.items()):
        ElementTree.SubElement(head, "meta", {"name": name, "content": content})
    # MRRT has no place for which studies a template is for, other than by the procedure's code.
    for name in _STUDIES:
        if words := getattr(template, name):
            ElementTree.SubElement(head, "meta", {"name": f"atrium.{name}", "content": ", ".join(words)})
    script = ElementTree.SubElement(head, "script", {"type": "text/xml"})
    script.text = template.coded_content or _minimal_attributes(template)
    body = ElementTree.SubElement(html, "body")
    for section in Outline.of(template.content).sections:
        attributes = {"id": section.id, "data-section-name": section.title, "class": "level1"}
        box = ElementTree.SubElement(body, "section", {**attributes, "data-atrium-role": section.role})
        ElementTree.SubElement(box, "header", {"class": "level1"}).text = section.title
        for one in section.fields:
            paragraph = ElementTree.SubElement(box, "p")
            if one.label:
                ElementTree.SubElement(paragraph, "label", {"for": f"{one.id}"}).text = one.label
            _write_field(paragraph, one)
    written: bytes = ElementTree.tostring(html, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + written + b"\n"


def _write_field(parent: ElementTree.Element, one: Field) -> None:
    common = {
        "id": one.id,
        "name": one.label or one.id,
        "data-field-completion-action": "PRECLUDE" if one.required else "NONE",
    }
    if one.help:
        common["title"] = one.help
    if one.show_if is not None:
        common[_CONDITION] = one.show_if.field
        common[_CONDITION_VALUES] = "\n".join(one.show_if.values)
    if one.type == "text":
        area = ElementTree.SubElement(parent, "textarea", {**common, "data-field-type": "TEXT"})
        area.text = str(one.default)
    elif one.type in {"choice", "multi"}:
        more = {"multiple": "multiple"} if one.type == "multi" else {}
        chosen = one.default if isinstance(one.default, list) else [one.default]
        select = ElementTree.SubElement(parent, "select", {**common, "data-field-type": "SELECTION_LIST", **more})
        for option in one.options:
            selected = {"selected": "selected"} if option in chosen else {}
            ElementTree.SubElement(select, "option", {"value": option, **selected}).text = option
    elif one.type == "checkbox":
        checked = {"checked": "checked"} if one.default is True else {}
        kind = {"type": "checkbox", "data-field-type": "SELECTION_LIST"}
        ElementTree.SubElement(parent, "input", {**common, **kind, "value": one.label, **checked})
    elif one.type == "date":
        ElementTree.SubElement(
            parent, "input", {**common, "type": "date", "data-field-type": "DATE", "value": str(one.default)}
        )
    else:
        bounds = {
            name: f"{bound:g}" for name, bound in (("min", one.minimum), ("max", one.maximum)) if bound is not None
        }
        units = {"data-field-units": one.unit} if one.unit else {}
        kind = {"type": "number", "data-field-type": "NUMBER", "value": str(one.default)}
        ElementTree.SubElement(parent, "input", {**common, **kind, **units, **bounds})


def _minimal_attributes(template: ReportTemplate) -> str:
    root = ElementTree.Element("template_attributes")
    ElementTree.SubElement(root, "top-level-flag").text = "true"
    ElementTree.SubElement(root, "status").text = "ACTIVE"
    coded = ElementTree.SubElement(root, "coded_content")
    for code in template.procedure_codes:
        entry = ElementTree.SubElement(coded, "entry", {"ORIGTXT": "procedure"})
        term = ElementTree.SubElement(entry, "term", {"type": "procedure"})
        ElementTree.SubElement(term, "code", {name: code.get(name, "") for name in ("value", "scheme", "meaning")})
    return ElementTree.tostring(root, encoding="unicode")


def _studies(elements: list[ElementTree.Element]) -> dict[str, list[str]]:
    said = {e.get("name") or "": e.get("content") or "" for e in elements if e.tag == "meta"}
    found = {name: said.get(f"atrium.{name}", "")[:_LONGEST_WORDS].split(",") for name in _STUDIES}
    return {name: [word.strip() for word in words if word.strip()] for name, words in found.items()}


def _words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _coded_content(elements: list[ElementTree.Element]) -> str:
    """Give the coded content as XML written anew; empty where there's none that can be read."""
    for element in elements:
        if element.tag != "script" or (element.get("type") or "").lower() not in {"text/xml", "application/xml"}:
            continue
        # Older templates of RadReport have it in a comment.
        text = (element.text or "").strip().removeprefix("<!--").removesuffix("-->").strip()
        # No entities: neither those that grow without bounds nor those that read files.
        if "<!" in text.replace("<!--", "").replace("<![CDATA[", ""):
            continue
        try:
            root = ElementTree.fromstring(text)  # noqa: S314  has no DTD
        except ElementTree.ParseError:
            continue
        written = ElementTree.tostring(root, encoding="unicode")
        if root.tag == "template_attributes" and "</script" not in written.lower():
            return written
    return ""


def _procedure_codes(coded: str) -> list[dict[str, str]]:
    if not coded:
        return []
    codes = []
    for term in ElementTree.fromstring(coded).iter("term"):  # noqa: S314  written by ourselves
        if (term.get("type") or "").lower() == "procedure":
            for code in term.iter("code"):
                codes.append({name: (code.get(name) or "")[:64] for name in ("value", "scheme", "meaning")})
    return codes[:50]


@dataclass
class _File:
    """What a file's fields need to know of the elements around them."""

    fields: list[ElementTree.Element]
    sections: dict[ElementTree.Element, ElementTree.Element]
    labels: dict[str, str]
    wrapped: dict[ElementTree.Element, str]
    lists: dict[str, list[str]]
    # How many boxes of a section share a name: those are one list.
    boxes: Counter[tuple[ElementTree.Element, str]]

    @classmethod
    def of(cls, root: ElementTree.Element, elements: list[ElementTree.Element]) -> _File:
        """Look at every element once. Raises NotATemplate for what no template holds."""
        file = cls([], {}, {}, {}, {}, Counter())
        depths = {root: 0}
        for element in elements:
            if depths[element] > DEEPEST:
                raise NotATemplate("The file's elements lie too deep in each other for a template.")
            inner = element if element.tag == "section" else file.sections.get(element)
            for child in element:
                depths[child] = depths[element] + 1
                if inner is not None:
                    file.sections[child] = inner
            if element.tag == "label":
                file._note_label(element)
            elif element.tag == "datalist":
                file.lists[element.get("id") or ""] = _options(element)[0]
            elif element.tag in _FIELDS and _type(element) not in _NOT_FIELDS:
                file.fields.append(element)
                if _type(element) == "checkbox" and (name := element.get("name")) and element in file.sections:
                    file.boxes[file.sections[element], name] += 1
        if len(file.fields) > MOST_FIELDS:
            raise NotATemplate(f"The file has more than {MOST_FIELDS} fields.")
        return file

    def _note_label(self, label: ElementTree.Element) -> None:
        inside = [e for e in label.iter() if e.tag in _FIELDS]
        words = _label("".join(part for e in label.iter() for part in _own_text(e, label)))
        if words and len(inside) == 1:
            self.wrapped[inside[0]] = words
        # The unit behind a number may have a label, too: the first one says what it is.
        if words and label.get("for"):
            self.labels.setdefault(label.get("for") or "", words)

    def label_of(self, element: ElementTree.Element) -> str:
        """Give what a field is called; its name where that is for people."""
        identity, name = element.get("id") or "", element.get("name") or ""
        own = self.labels.get(identity) or self.wrapped.get(element) or _label(element.get("aria-label") or "")
        return own or ("" if name == identity else _label(name))


def _own_text(element: ElementTree.Element, label: ElementTree.Element) -> list[str]:
    """Give an element's share of a label's words: not what a field in it holds."""
    own = [] if element.tag in {*_FIELDS, "option"} else [element.text or ""]
    return own if element is label or element.tag == "option" else [*own, element.tail or ""]


def _label(text: str) -> str:
    return " ".join(text.split()).rstrip(": ")[:200]


def _type(element: ElementTree.Element) -> str:
    return (element.get("type") or "").lower()


def _options(element: ElementTree.Element) -> tuple[list[str], list[str]]:
    """Give the options of a list, and those of them that are chosen."""
    options: dict[str, bool] = {}
    for option in element.iter("option"):
        if text := (_words(option) or option.get("value") or "").strip()[:200]:
            options[text] = options.get(text, False) or option.get("selected") is not None
    return list(options), [text for text, is_chosen in options.items() if is_chosen]


def _sections(file: _File) -> list[dict[str, Any]]:
    names = _Names()
    sections: dict[ElementTree.Element, dict[str, Any]] = {}
    ids: dict[str, str] = {}
    groups: dict[tuple[ElementTree.Element, str], dict[str, Any]] = {}
    for element in file.fields:
        box = file.sections.get(element)
        if box is None:
            continue
        if box not in sections:
            title = _title(box, file)
            sections[box] = {
                "id": names.new(box.get("id") or title, "section"),
                "title": title[:200],
                "role": _role(box, title),
                "fields": [],
            }
        key = (box, element.get("name") or "")
        is_radio = _type(element) == "radio"
        if is_radio or (_type(element) == "checkbox" and file.boxes[key] > 1):
            if key not in groups:
                label = file.labels.get(key[1]) or _label(key[1])
                kind = "choice" if is_radio else "multi"
                groups[key] = {"id": names.new(key[1], "field"), "type": kind, "label": label, "options": []}
                sections[box]["fields"].append(groups[key])
            _add_option(groups[key], element, file)
            continue
        read = _read_field(element, file, names)
        ids[element.get("id") or ""] = read["id"]
        if (needed := element.get(_CONDITION)) and needed in ids:
            values = [v for v in (element.get(_CONDITION_VALUES) or "").split("\n") if v]
            if values:
                read["show_if"] = {"field": ids[needed], "values": values}
        sections[box]["fields"].append(read)
    for section in sections.values():
        section["fields"] = [f for f in section["fields"] if f["type"] not in {"choice", "multi"} or f["options"]]
        if len(section["fields"]) == 1 and section["fields"][0]["type"] == "text":
            # A section's only text needs no word before it.
            only = section["fields"][0]
            if only["id"] != section["id"] and only["label"].casefold() in {"text", section["title"].casefold()}:
                only["label"] = ""
    return [section for section in sections.values() if section["fields"]]


def _add_option(group: dict[str, Any], element: ElementTree.Element, file: _File) -> None:
    named = file.labels.get(element.get("id") or "") or file.wrapped.get(element)
    option = (named or element.get("value") or element.tail or "").strip()[:200]
    if not option or option in group["options"]:
        return
    group["options"].append(option)
    if element.get("checked") is not None:
        if group["type"] == "choice":
            group["default"] = option
        else:
            group.setdefault("default", []).append(option)


_FIELDS = {"input", "select", "textarea"}
_NOT_FIELDS = {"hidden", "submit", "button", "image", "reset", "file", "password"}


class _Names:
    """Gives each section and field a name of its own, the file's where it can be one."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def new(self, wanted: str, kind: str) -> str:
        name = _NOT_ID.sub("_", wanted).strip("_.-")[:50]
        if not name or not name[0].isalpha() or f"{kind}:{name}" in self._used or name in _AVOIDED:
            name = f"{kind[0]}_{name}"[:50]
        base, number = name, 1
        while f"{kind}:{name}" in self._used:
            number += 1
            name = f"{base}_{number}"
        self._used.add(f"{kind}:{name}")
        return name


# Names of the desk's own form.
_AVOIDED = {"revision", "part", "password", "code", "passkey", "accepted", "reason_for", "csrfmiddlewaretoken", "key"}


def _title(box: ElementTree.Element, file: _File) -> str:
    own = _own_title(box) or "Section"
    outer = file.sections.get(box)
    return f"{_own_title(outer)}, {own}" if outer is not None and _own_title(outer) else own


def _own_title(box: ElementTree.Element) -> str:
    named = box.get("data-section-name") or next((_words(e) for e in box if e.tag in {"header", "h1", "h2", "h3"}), "")
    return _label(named)


def _role(box: ElementTree.Element, title: str) -> str:
    told = (box.get("data-atrium-role") or "").lower()
    if told in {"indication", "technique", "comparison", "findings", "impression", "reason", "other"}:
        return told
    words = f"{box.get('data-section-type') or ''} {title}".lower()
    return next((role for role, known in _ROLE_WORDS if any(word in words for word in known)), "other")


def _read_field(element: ElementTree.Element, file: _File, names: _Names) -> dict[str, Any]:
    identity = element.get("id") or element.get("name") or ""
    read: dict[str, Any] = {
        "id": names.new(identity, "field"),
        "label": file.label_of(element),
        "help": (element.get("title") or "")[:500],
        "required": (element.get("data-field-completion-action") or "").upper() in _MUST_BE_FILLED,
    }
    kind = (element.get("data-field-type") or "").upper()
    html_type = _type(element)
    default = (element.get("value") or "")[:5000]
    offered = file.lists.get(element.get("list") or "")
    if element.tag == "select":
        options, chosen = _options(element)
        is_multi = element.get("multiple") is not None
        read |= {"type": "multi" if is_multi else "choice", "options": options}
        if chosen:
            read["default"] = chosen if is_multi else chosen[0]
    elif offered:
        default = default.strip()[:200]
        options = offered if not default or default in offered else [default, *offered]
        read |= {"type": "choice", "options": options, "default": default}
    elif element.tag == "textarea":
        read |= {"type": "text", "default": (element.text or "").strip("\n")[:5000]}
    elif html_type == "checkbox":
        label = read["label"] or _label(default) or _label(element.tail or "") or "Yes"
        read |= {"type": "checkbox", "label": label, "default": element.get("checked") is not None}
    elif kind == "DATE" or html_type == "date":
        read |= {"type": "date", "default": default if parsed_date(default) else ""}
    elif kind in {"NUMBER", "NUMERIC"} or html_type in {"number", "range"}:
        bounds = {
            "minimum": parsed_number(element.get("min") or ""),
            "maximum": parsed_number(element.get("max") or ""),
        }
        unit = (element.get("data-field-units") or "")[:20]
        read |= {"type": "number", "unit": unit, "default": default if parsed_number(default) is not None else ""}
        read |= {
            name: int(bound) if bound.is_integer() else bound for name, bound in bounds.items() if bound is not None
        }
    elif identity.endswith("_FreeText"):
        # RadReport's own words behind a box: what stands there is its prompt, said only when the box is ticked.
        read |= {"type": "text", "label": read["label"] or _label(default), "default": ""}
    else:
        read |= {"type": "text", "default": default}
    return read


# The profile's word, RadReport's for the same, and the one that only warns.
_MUST_BE_FILLED = {"PRECLUDE", "PROHIBIT", "ALERT"}
