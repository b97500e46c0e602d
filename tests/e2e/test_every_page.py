"""Every page in a real browser: axe-core finds nothing serious in light or dark, and a phone shows all of it.

The pages are those of the walk over every route (:mod:`tests.access.test_every_route`), so that none is forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT as AXE
from django.urls import Resolver404, resolve
from playwright.sync_api import Browser, Page

from tests.access.test_every_route import ALLOWED, NOT_OURS, every_route, path_of, routes
from tests.e2e.browser import chromium, needs_chromium, signed_in, until
from tests.services.atrium import Atrium, running_atrium

pytestmark = needs_chromium

# Who opens a page: the first of these whom it lets in.
VISITORS = ("radiologist", "technologist", "admin", "compliance", "resident", "referrer", "southradiologist")
# Pages that look another way to others.
ALSO = {
    "referrer": ("worklist", "results", "study", "report", "patient", "critical_result", "notifications"),
    "technologist": ("worklist", "study", "order"),
    "admin": ("worklist", "transfers"),
    "stranger": ("report_verify",),
}
# What opens on a route's page, by what is clicked or, after a colon, pressed.
OPENS = {
    "worklist": {
        "help": ":?",
        "person": ".topbar-user",
        "rooms": ".topnav-more > button",
        "status": ".filter-menu >> nth=0",
        "filters": ".filter-menu-more",
        "columns": "[data-open=choose-columns]",
        "chosen": "#rows tbody tr:nth-child(2) input[name=study]",
    },
    "study": {
        "help": ":?",
        "signing": "#begin-signing",
        "history": "#show-history",
        "preview": ".draft-actions > .btn >> nth=0",
        "critical": ".critical-form > summary",
        "retracting": "[aria-controls=retract]",
        "discussion": "#discussion-box > summary",
    },
    "dashboard": {"table": "details > summary"},
    "teaching_case": {"answer": ".answer > summary"},
    "orders": {"help": ":?"},
}
# OHIF's own page, and a redirect to it.
NOT_PAGES = ("viewer", "viewer_open", "viewer_first_look", "viewer_asset")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1440, "height": 900}
SEED = (
    "import json; from accounts.models import Site; from tests.access.test_every_route import one_of_everything; "
    "print(json.dumps(one_of_everything(Site.objects.get(slug='north'))))"
)
# As long as DICOM lets them be, and without a place to break.
LONG = """
from accounts.models import Site, User
from studies.models import Patient, Study
from studies.orders.models import Order
name = "Featherstonehaugh-Montgomery-Cholmondeley^Alexandrina Wilhelmina^Theodora"
Patient.objects.update(patient_name=name, patient_id="ID" * 32)
Study.objects.update(
    patient_name=name, patient_id_value="ID" * 32, accession_number="A" * 16, study_description="CT_THORAX_" * 6
)
Order.objects.update(requested_procedure_description="CT_THORAX_" * 6, indication="Pneumonoultramicroscopic" * 9)
Site.objects.update(name="Universitätsklinikum Nord, Standort Donaudampfschifffahrtsgesellschaft")
User.objects.update(last_name="Wolfeschlegelsteinhausenbergerdorff")
(study,) = Study.objects.values("site_id", "patient_id", "status", "study_description", "modalities_in_study")
for number, name in enumerate(("Yamada^Tarou=山田^太郎=やまだ^たろう", "قباني^نزار", "כהן^שרה לאה", "")):
    Study.objects.create(**study, study_instance_uid="1." + "2" * 61 + str(number), patient_name=name)
"""
# axe tries WCAG 2.2's target size only when told to.
RULES = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
# A menu covers half of what is behind it.
OPENED = {"resultTypes": ["violations"]}
THUMBS = {"resultTypes": ["violations"], "runOnly": {"type": "rule", "values": ["target-size"]}}
CONTRAST = {"resultTypes": ["violations"], "runOnly": {"type": "rule", "values": ["color-contrast"]}}
QUIET = "!document.querySelector('.htmx-request, #report-panel > p.soft:only-child')"
# Two frames later all that follows from a change is there, but colours that fade are only on their way.
DRAWN = """new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
  for (const one of document.getAnimations()) one.cancel();
  done();
})))"""
SERIOUS = """axe.run(%s).then((found) => found.violations
  .filter((one) => ["serious", "critical"].includes(one.impact))
  .flatMap((one) => one.nodes.slice(0, 3).map((node) => [one.id, node.html.slice(0, 160)])))"""


@dataclass
class Walk:
    """What was seen: how many pages, and what is wrong with which."""

    pages: list[str] = field(default_factory=list)
    findings: list[tuple[str, ...]] = field(default_factory=list)
    opened: set[tuple[str, str]] = field(default_factory=set)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("pages") / "atrium", "web") as atrium:
        yield atrium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(draws_images=False) as started:
        yield started


@pytest.fixture(scope="module")
def addresses(installation: Atrium) -> dict[str, list[str]]:
    """Give each person's addresses: what the walk over the routes knows, and the pages of one's own account."""
    arguments = json.loads(installation.manage("shell", "--no-imports", "-c", SEED).strip().splitlines()[-1])
    installation.manage("shell", "--no-imports", "-c", LONG)
    found: dict[str, list[str]] = {person: [] for person in (*VISITORS, "stranger")}
    for name, pattern in routes():
        if name in NOT_PAGES or name.startswith("dicomweb") or name not in ALLOWED:
            continue
        path = path_of(pattern, arguments)
        for person in {
            *[one for one in VISITORS if one in ALLOWED[name]][:1],
            *(one for one, names in ALSO.items() if name in names),
        }:
            found[person].append(path)
    for name, pattern in every_route():
        if name.startswith(NOT_OURS) and "<" not in pattern:
            found["radiologist"].append(f"/{pattern}")
            found["stranger"].append(f"/{pattern}")
    found["radiologist"].append("/no-such-page/")
    found["technologist"].append("/audit/")
    return found


def test_no_page_has_a_serious_finding_and_all_fit_a_phone(
    installation: Atrium, browser: Browser, addresses: dict[str, list[str]]
) -> None:
    walk = Walk()
    for person, paths in addresses.items():
        with opened(browser, installation, person) as page:
            for path in paths:
                visit(page, installation.url, path, walk, person)
    assert walk.findings == [], "\n".join(map(str, walk.findings))
    assert len(walk.pages) > 60, walk.pages
    assert walk.opened == {(name, what) for name, opens in OPENS.items() for what in opens}


@contextmanager
def opened(browser: Browser, installation: Atrium, person: str) -> Iterator[Page]:
    """Give a page of a person, or of a stranger; images stay closed, as OHIF's screen is OHIF's."""
    # Colours that fade would be measured half-way.
    options: dict[str, Any] = {"reduced_motion": "reduce", "color_scheme": "light", "viewport": DESK}
    if person == "stranger":
        context = browser.new_context(**options)
        context.add_init_script(AXE)
        yield context.new_page()
        context.close()
    else:
        with signed_in(browser, installation, person, **options) as page:
            page.context.add_init_script(AXE)
            page.context.route("**/viewer/**", lambda route: route.abort())
            yield page


def visit(page: Page, url: str, path: str, walk: Walk, person: str) -> None:
    """Look at an address if it's a page that this person may see."""
    answer = page.request.get(url + path, max_redirects=0)
    kind = answer.headers.get("content-type", "")
    if not kind.startswith("text/html") or "content-disposition" in answer.headers or "<html" not in answer.text():
        return
    walk.pages.append(f"{person} {path}")
    page.goto(url + path)
    until(page, QUIET)
    walk.findings += serious(page, RULES, f"{person} {path}")
    page.evaluate("document.documentElement.setAttribute('data-bs-theme', 'dark')")
    page.evaluate(DRAWN)
    walk.findings += serious(page, CONTRAST, f"{person} {path} dark")
    page.set_viewport_size(PHONE)
    page.evaluate(DRAWN)
    if (width := page.evaluate("document.documentElement.scrollWidth")) > PHONE["width"]:
        walk.findings.append((f"{person} {path}", "wider than a phone", str(width)))
    walk.findings += serious(page, THUMBS, f"{person} {path} on a phone")
    page.set_viewport_size(DESK)
    for what, where in OPENS.get(name_of(path), {}).items():
        page.goto(url + path)
        until(page, QUIET)
        if open_up(page, where):
            walk.opened.add((name_of(path), what))
            page.evaluate(DRAWN)
            walk.findings += serious(page, OPENED, f"{person} {path} {what}")


def name_of(path: str) -> str:
    """Give the route's name, or the path's own where there's none."""
    try:
        return resolve(path).url_name or path.strip("/").replace("/", "_")
    except Resolver404:
        return "not_found"


def open_up(page: Page, where: str) -> bool:
    """Open what is clicked or, after a colon, pressed; False where there's nothing of the kind."""
    if where.startswith(":"):
        page.keyboard.press(where[1:])
    elif not page.locator(where).first.is_visible():
        return False
    else:
        page.locator(where).first.click()
    until(page, QUIET)
    return True


def serious(page: Page, options: dict[str, Any], where: str) -> list[tuple[str, ...]]:
    """Give axe's serious and critical findings: where, which rule, on what."""
    return [(where, *found) for found in page.evaluate(SERIOUS % json.dumps(options))]
