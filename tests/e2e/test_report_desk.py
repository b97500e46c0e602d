"""The report desk in a real browser: nothing typed is lost, everything has a key, two people and one report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.browser import chromium, needs_chromium, signed_in, until
from tests.factories import PASSWORD, make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = needs_chromium
SAVED = "#save-state[data-state=saved]:has-text('Saved')"
# What is typed is locked away beside the try to save it.
LOCKED = "Object.keys(localStorage).some((key) => key.startsWith('atrium.draft'))"
PICTURES = os.environ.get("ATRIUM_PICTURES", "")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("desk") / "atrium", "web", "worker", "scheduler") as atrium:
        yield atrium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def desk(installation: Atrium, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Give the address of the desk of a new study, of its own patient."""
    uid = f"1.2.826.0.1.{abs(hash(request.node.name)) % 10**9}"
    file = make_instance(
        StudyInstanceUID=uid, PatientID=uid[-8:], AccessionNumber=uid[-8:], StudyDescription="CT thorax right"
    )
    (tmp_path / "ct.dcm").write_bytes(file)
    installation.manage("import", str(tmp_path / "ct.dcm"), "--site", "north")
    return f"{installation.url}/reports/{uid}/desk/"


def picture(page: Page, name: str) -> None:
    """Assert that the page is accessible; keep a picture of it, when asked for, in both themes, wide and narrow."""
    assert_accessible(page)
    if not PICTURES:
        return
    for theme in ("dark", "light"):
        page.evaluate("theme => document.documentElement.setAttribute('data-bs-theme', theme)", theme)
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(path=Path(PICTURES) / f"{name}-{theme}-{width}.png", full_page=True)
    page.set_viewport_size({"width": 1440, "height": 900})


def assert_accessible(page: Page) -> None:
    """Assert that axe-core finds nothing serious."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in {"serious", "critical"}] == []


def begin(page: Page, desk: str) -> None:
    page.goto(desk)
    page.click("text=Write the report")
    page.wait_for_selector("#draft")


def sign(page: Page) -> None:
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#checks-seen")
    page.fill("#sign-password", PASSWORD)
    page.keyboard.press("Enter")


def test_words_typed_without_a_network_are_there_again(installation: Atrium, browser: Browser, desk: str) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        begin(page, desk)
        page.fill("#section-findings", "before the cut")
        page.wait_for_selector(SAVED)
        page.context.set_offline(True)
        page.fill("#section-impression", "typed on the train")
        page.wait_for_selector("#save-state[data-state=failed]")
        until(page, LOCKED)
        locked = page.evaluate("() => Object.entries(localStorage).filter(([k]) => k.startsWith('atrium.draft'))")
        assert len(locked) == 1
        assert "train" not in locked[0][1]
        page.context.set_offline(False)
        page.wait_for_selector(SAVED)
        assert page.evaluate("() => Object.keys(localStorage).filter(k => k.startsWith('atrium.draft')).length") == 0
        page.reload()
        assert page.input_value("#section-impression") == "typed on the train"


def test_words_typed_before_the_draft_was_heard_to_be_begun_are_there_again(
    installation: Atrium, browser: Browser, desk: str
) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        page.goto(desk)

        def answer_lost(route: Route) -> None:
            route.fetch()
            route.abort()

        page.route("**/start/", answer_lost)
        page.fill("#section-findings", "the first words")
        page.wait_for_selector("#save-state[data-state=failed]")
        until(page, LOCKED)
        page.close(run_before_unload=False)
        again = page.context.new_page()
        again.goto(desk)
        again.wait_for_selector(SAVED)
        assert again.input_value("#section-findings") == "the first words"
        again.reload()
        assert again.input_value("#section-findings") == "the first words"
        assert again.evaluate("() => Object.keys(localStorage).filter(k => k.startsWith('atrium.draft')).length") == 0


def test_words_typed_while_the_server_is_dead_survive_a_closed_page(
    installation: Atrium, browser: Browser, desk: str
) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        begin(page, desk)
        installation.kill("web")
        page.fill("#section-findings", "nobody listens")
        page.wait_for_selector("#save-state[data-state=failed]")
        until(page, LOCKED)
        page.on("dialog", lambda dialog: dialog.accept())
        page.close(run_before_unload=False)
        installation.start("web")
        again = page.context.new_page()
        again.goto(desk)
        again.wait_for_selector(SAVED)
        assert again.input_value("#section-findings") == "nobody listens"


@pytest.mark.parametrize("is_begun", [True, False])
def test_words_typed_after_the_session_ended_are_saved_once_signed_in_again(
    installation: Atrium, browser: Browser, desk: str, is_begun: bool
) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        page.goto(desk)
        if is_begun:
            page.fill("#section-findings", "before")
            page.wait_for_selector(SAVED)
        page.context.clear_cookies(name="atrium_session")
        page.set_viewport_size({"width": 390, "height": 420})
        page.fill("#section-impression", "typed while signed out")
        expect(page.locator("#save-state")).to_be_in_viewport()
        expect(page.locator("#save-state[data-state=failed]")).to_contain_text("you were signed out")
        expect(page.locator("#signed-out a")).to_be_visible()
        with page.expect_popup() as opened:
            page.click("#signed-out a")
        again = opened.value
        again.fill("input[name=login]", "radiologist")
        again.fill("input[name=password]", PASSWORD)
        again.press("input[name=password]", "Enter")
        again.wait_for_url(lambda url: "/accounts/" not in url)
        again.close()
        # The first try after signing in only renews the form's token; the last one comes after 30 s.
        page.wait_for_selector(SAVED, timeout=90_000)
        expect(page.locator("#signed-out")).to_have_count(0)
        page.reload()
        assert page.input_value("#section-impression") == "typed while signed out"


def test_two_tabs_merge_what_they_can_and_show_what_they_cannot(
    installation: Atrium, browser: Browser, desk: str
) -> None:
    with signed_in(browser, installation, "radiologist") as one:
        begin(one, desk)
        two = one.context.new_page()
        two.goto(desk)
        one.fill("#section-findings", "from the first tab")
        one.wait_for_selector(SAVED)
        two.fill("#section-impression", "from the second tab")
        two.wait_for_selector(SAVED)
        expect(two.locator("#section-findings")).to_have_value("from the first tab")
        one.set_viewport_size({"width": 1440, "height": 420})
        one.fill("#section-impression", "another impression")
        one.wait_for_selector("#conflict:not([hidden])")
        expect(one.locator("#section-impression")).to_be_in_viewport()
        expect(one.locator("#keep-mine")).to_be_in_viewport()
        one.set_viewport_size({"width": 1440, "height": 900})
        assert one.inner_text("#field-impression .other-version") == "from the second tab"
        assert one.input_value("#section-impression") == "another impression"
        picture(one, "conflict")
        one.click("#keep-mine")
        one.wait_for_selector(SAVED)
        one.reload()
        assert one.input_value("#section-impression") == "another impression"
        assert one.input_value("#section-findings") == "from the first tab"


def test_who_comes_second_is_told_who_was_first_and_goes_on_with_the_own_words(
    installation: Atrium, browser: Browser, desk: str
) -> None:
    study = f"{installation.url}/studies/{desk.split('/')[-3]}/"
    with signed_in(browser, installation, "radiologist") as one, signed_in(browser, installation, "resident") as two:
        for page in (one, two):
            page.context.route("**/viewer/**", lambda route: route.abort())
            # Who doesn't listen yet isn't told.
            with page.expect_response(lambda r: r.url.endswith("/worklist/changes/") and "/studies/" in r.frame.url):
                page.goto(study)
            page.wait_for_selector("#draft")
        one.click("#begin-report")
        two.wait_for_selector("#claim.is-others")
        expect(two.locator("#study-status")).to_have_text("In reading")
        two.fill("#section-findings", "typed a moment late")
        two.wait_for_selector("#see-theirs")
        expect(two.locator("#save-state")).to_contain_text("has this case open")
        two.click("#see-theirs")
        two.click("#report-panel button:has-text('Take over')")
        expect(two.locator("#section-findings")).to_have_value("typed a moment late")
        # From whom it was taken is told by whom, may leave it to them, and knows where the own words are.
        two.wait_for_selector(SAVED)
        one.fill("#section-impression", "typed by who was first")
        expect(one.locator("#conflict-taken")).to_contain_text("resident has taken this report over")
        expect(one.locator("#take-theirs")).to_be_hidden()
        one.click("#see-theirs")
        expect(one.locator("#kept-words")).to_be_visible()
        expect(two.locator("#draft")).to_be_visible()
        # A claim whose time is over isn't shown any longer, though nobody did anything.
        one.goto("about:blank")
        ends = "from studies.models import Study as S; from django.utils.timezone import now, timedelta as t; "
        ends += (
            "S.objects.filter(claimed_by__isnull=False).update(claimed_until=now() + t(seconds=20), claimed_by_id={})"
        )
        pk = "__import__('accounts.models').models.User.objects.get(username='radiologist').pk"
        installation.manage("shell", "--no-imports", "-c", ends.format(pk))
        two.reload()
        two.wait_for_selector("#claim.is-others")
        expect(two.locator("#claim")).to_contain_text("Nobody has this case open", timeout=40_000)


def test_a_macro_and_its_places_by_keyboard_alone(installation: Atrium, browser: Browser, desk: str) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        page.goto(f"{installation.url}/reports/macros/")
        page.fill("#macro-trigger", ".normalchest")
        page.fill("#macro-text", "Lungs clear. Heart [size] mm. Effusion: [none].")
        page.press("#macro-trigger", "Enter")
        page.wait_for_selector("td:has-text('.normalchest')")
        page.fill("#heard", "pneu")
        page.fill("#written", "pneumothorax")
        page.press("#written", "Enter")
        page.wait_for_selector("li:has-text('pneumothorax')")
        picture(page, "macros")
        begin(page, desk)
        page.focus("#section-findings")
        page.keyboard.type(".normalchest")
        page.keyboard.press("Tab")
        page.keyboard.type("120")
        page.keyboard.press("Tab")
        page.keyboard.type("no")
        assert page.input_value("#section-findings") == "Lungs clear. Heart 120 mm. Effusion: no."
        page.keyboard.press("F2")
        assert page.evaluate("() => document.activeElement.name") == "impression"
        page.keyboard.press("Shift+F2")
        assert page.evaluate("() => document.activeElement.name") == "findings"
        page.keyboard.press("Control+End")
        page.keyboard.type(" No pneu.")
        assert page.input_value("#section-findings").endswith("No pneumothorax.")
        page.select_option("#section-nodule", "Solid")
        expect(page.locator("#section-nodule_size")).to_be_visible()
        page.fill("#section-nodule_size", "900")
        page.fill("#section-impression", "Nodule in the left lung.")
        page.wait_for_selector("#checks :text('the study is of the right side')")
        page.wait_for_selector("#checks :text('expected 1 to 200')")
        picture(page, "desk")
        page.select_option("#desk-template", label="Plain")
        page.wait_for_selector("#section-nodule_size", state="detached")
        assert "Nodule, mean diameter: 900 mm" in page.input_value("#section-findings")
        assert "Lungs clear." in page.input_value("#section-findings")


def test_the_resident_writes_and_the_attending_confirms(installation: Atrium, browser: Browser, desk: str) -> None:
    with signed_in(browser, installation, "resident") as page:
        begin(page, desk)
        page.fill("#section-findings", "A nodule of 8 mm.")
        page.fill("#section-impression", "Follow-up in 6 months.")
        page.wait_for_selector(SAVED)
        sign(page)
        page.wait_for_selector("#preliminary-note")
    with signed_in(browser, installation, "referrer") as page:
        page.goto(desk.replace("/desk/", "/"))
        assert "Preliminary" in page.inner_text("article.report")
        picture(page, "preliminary")
    with signed_in(browser, installation, "radiologist") as page:
        page.goto(f"{installation.url}/reports/")
        page.wait_for_selector("text=to be co-signed")
        picture(page, "reports")
        page.goto(desk)
        page.click("text=Review and co-sign")
        page.wait_for_selector("#draft")
        page.fill("#section-impression", "Follow-up in 3 months.")
        page.wait_for_selector(SAVED)
        sign(page)
        page.wait_for_selector(".report-signature")
        assert "written by resident" in page.inner_text(".report-signature")
    with signed_in(browser, installation, "resident") as page:
        page.goto(f"{installation.url}/reports/")
        page.wait_for_selector("text=confirmed: each shows what was changed")
        uid = desk.split("/")[-3]
        page.goto(f"{installation.url}/reports/{uid}/history/")
        assert page.text_content("ins") == "3"
        assert page.text_content("del") == "6"


def test_a_colleague_is_asked_by_buttons_and_the_notice_leads_to_the_words(
    installation: Atrium, browser: Browser, desk: str
) -> None:
    study = f"{installation.url}/studies/{desk.split('/')[-3]}/"
    with signed_in(browser, installation, "resident") as one, signed_in(browser, installation, "radiologist") as two:
        for page in (one, two):
            page.context.route("**/viewer/**", lambda route: route.abort())
        one.goto(study)
        one.wait_for_selector("#draft")
        one.click("#discussion-box > summary")
        one.click(".colleagues summary")
        one.click("[data-mention=radiologist]")
        one.keyboard.type("is this a fracture?")
        one.click("text=Ask for an opinion")
        expect(one.locator(".comment-text")).to_have_text("@radiologist is this a fracture?")
        two.goto(f"{installation.url}/notifications/")
        two.click("button:has-text('asks for your opinion')")
        two.wait_for_selector("#draft")
        expect(two.locator(".comment-text")).to_be_in_viewport()
        two.fill("#comment-text", "No, an old one.")
        two.click(".comment-actions button >> nth=0")
        expect(two.locator(".comment")).to_have_count(2)
        two.click("text=Close the request")
        expect(two.locator(".comment.is-open")).to_have_count(0)
        one.goto(f"{installation.url}/notifications/")
        expect(one.locator("button:has-text('closed your request')")).to_have_count(1)


def test_a_critical_result_reaches_the_referrers_phone(installation: Atrium, browser: Browser, desk: str) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        begin(page, desk)
        page.fill("#section-findings", "Tension pneumothorax.")
        # By the keyboard: the desk may still glide to the field that was just typed in, and a mouse miss.
        page.locator("summary", has_text="Flag a critical finding").press("Enter")
        page.fill("#critical-finding", "Tension pneumothorax, right")
        page.check("input[name=category][value='1']")
        picture(page, "flag")
        page.click("text=Tell them now")
        page.wait_for_selector(".critical-line")
        assert page.input_value("#section-findings") == "Tension pneumothorax."
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with signed_in(browser, installation, "referrer", **phone) as page:
        assert page.inner_text("#bell .bubble") == "1"
        page.click("#bell")
        page.click("text=waits for your acknowledgement")
        page.wait_for_selector(".btn-acknowledge")
        picture(page, "critical")
        page.set_viewport_size({"width": 390, "height": 844})
        page.click(".btn-acknowledge")
        page.wait_for_selector("text=Acknowledged by")
        assert page.locator("#bell .bubble").count() == 0
    with signed_in(browser, installation, "radiologist") as page:
        page.goto(f"{installation.url}/reports/critical/")
        page.wait_for_selector("text=Closed lately")
        page.wait_for_selector("td:has-text('Tension pneumothorax')")
        picture(page, "critical-list")
        page.click("#bell")
        page.wait_for_selector("text=was acknowledged")
        picture(page, "notices")


def test_a_report_is_retracted(installation: Atrium, browser: Browser, desk: str) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        begin(page, desk)
        page.fill("#section-findings", "Clear.")
        page.fill("#section-impression", "Normal.")
        page.wait_for_selector(SAVED)
        sign(page)
        page.wait_for_selector(".report-signature")
        picture(page, "signed")
        page.click("text=Retract…")
        page.fill("#retract-reason", "Another patient's images.")
        page.fill("#retract-password", PASSWORD)
        page.click("#retract button[type=submit]")
        page.wait_for_selector(".retracted-note")
        page.wait_for_selector("text=Write the report")
        picture(page, "retracted")
        page.goto(desk.replace("/desk/", "/"))
        assert "Another patient's images." in page.inner_text("article.report")


def test_the_help_names_the_desks_keys(installation: Atrium, browser: Browser, desk: str) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        begin(page, desk)
        page.evaluate("() => document.activeElement.blur()")
        page.keyboard.press("?")
        page.wait_for_selector("#key-help[open]")
        listed = page.inner_text("#key-help")
        for words in ("Next field or place", "Previous field", "Sign", "Dictate", "Flag a critical finding"):
            assert words in listed


def tab_to(page: Page, element: str) -> None:
    """Press Tab until the element has the keyboard."""
    for _ in range(30):
        if page.evaluate("() => document.activeElement.id") == element:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no way by Tab to {element}")


def test_a_template_is_made_by_keyboard_alone(installation: Atrium, browser: Browser) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        page.goto(f"{installation.url}/reports/templates/new/")
        tab_to(page, "id_name")
        page.keyboard.type("Thyroid of mine")
        page.focus("#e-add-section")
        page.keyboard.press("Enter")
        page.wait_for_selector("#e-5-title:focus")
        page.keyboard.type("TI-RADS")
        tab_to(page, "e-5-0-label")
        page.keyboard.type("Nodule")
        tab_to(page, "e-5-0-type")
        # Letter by letter, slower than answers come: "n" alone would choose a number.
        for letter in "One":
            page.keyboard.press(letter)
            page.wait_for_timeout(300)
        page.keyboard.press("Tab")
        page.wait_for_selector("#e-5-0-options")
        tab_to(page, "e-5-0-options")
        page.keyboard.type("None\nSolid")
        tab_to(page, "e-5-add")
        page.wait_for_selector("#e-5-0-default option[value=Solid]", state="attached")
        page.focus("#e-5-add")
        page.keyboard.press("Enter")
        page.wait_for_selector("#e-5-1-label:focus")
        page.keyboard.type("Size in words")
        tab_to(page, "e-5-1-show-if")
        page.select_option("#e-5-1-show-if", "5.0")
        page.wait_for_selector("[name='5.1.show_if_values'][value=Solid]")
        page.check("[name='5.1.show_if_values'][value=Solid]")
        # Beside it the desk as it will be: the part depends on the choice.
        page.wait_for_selector("#template-preview #section-nodule")
        page.wait_for_selector("#template-preview #field-size_in_words[data-condition-values=Solid]", state="hidden")
        page.select_option("#section-nodule", "Solid")
        page.wait_for_selector("#template-preview #field-size_in_words", state="visible")
        picture(page, "template-editor")
        page.focus("#e-5-0-label")
        page.keyboard.press("Alt+ArrowDown")
        page.wait_for_selector("#template-preview .alert:has-text('doesn\\'t come before it')")
        assert page.evaluate("() => document.activeElement.id") == "e-5-1-label"
        page.keyboard.press("Alt+ArrowUp")
        page.wait_for_selector("#template-preview #section-nodule")
        assert page.evaluate("() => document.activeElement.value") == "Nodule"
        page.keyboard.press("Control+s")
        page.wait_for_url("**/reports/templates/")
        page.wait_for_selector("a.row-link:has-text('Thyroid of mine')")


def test_what_an_answer_brings_can_be_pressed_at_once(installation: Atrium, browser: Browser) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        page.goto(f"{installation.url}/reports/templates/new/")
        page.evaluate(
            """() => document.addEventListener("htmx:afterSwap", (event) => {
                if (event.detail.target.id === "template-editor")
                    setTimeout(() => document.getElementById("e-4-add").click());
            }, { once: true })"""
        )
        page.focus("#e-add-section")
        page.keyboard.press("Enter")
        page.wait_for_selector("#e-4-1-label:focus", timeout=10_000)


@contextmanager
def answers_held(page: Page, pattern: str) -> Iterator[Callable[[], None]]:
    """Hold the server's answers to what matches back; what is given lets them go, at the latest at the end."""
    waiting: list[Route] = []
    is_held = True

    def let_go() -> None:
        nonlocal is_held
        is_held = False
        while waiting:
            waiting.pop(0).continue_()

    page.route(pattern, lambda route: waiting.append(route) if is_held else route.continue_())
    yield let_go
    let_go()
    page.unroute(pattern)


HERE = "() => document.activeElement.name || document.activeElement.id || document.activeElement.tagName"


def test_a_late_answer_takes_the_keyboard_from_nobody(installation: Atrium, browser: Browser, desk: str) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        page.goto(f"{installation.url}/reports/templates/new/")
        page.click("#e-4-add")
        page.wait_for_selector("#e-4-1-label:focus")
        page.select_option("#e-4-1-type", "choice")
        page.fill("#e-4-1-options", "None")
        with answers_held(page, "**/reports/templates/editor/") as let_go:
            page.focus("#e-4-1-options")
            page.keyboard.press("Control+End")
            page.keyboard.type("\nSolid")
            for place in ("4.1.default", "4.1.required"):
                page.keyboard.press("Tab")
                assert page.evaluate(HERE) == place
            page.keyboard.press("Space")
            let_go()
            page.wait_for_selector("#e-4-1-default option[value=Solid]", state="attached")
            assert page.evaluate(HERE) == "4.1.required"
            page.keyboard.press("Tab")
            assert page.evaluate(HERE) == "4.1.has_no_label"
        with answers_held(page, "**/reports/templates/editor/") as let_go:
            page.focus("#e-4-1-options")
            page.keyboard.press("Control+End")
            page.keyboard.type("\nGround glass")
            page.focus("#e-4-1-help")
            page.keyboard.type("How dens")
            page.keyboard.press("Home")
            let_go()
            page.wait_for_selector("#e-4-1-default option[value='Ground glass']", state="attached")
            page.keyboard.type("? ")
            assert page.input_value("#e-4-1-help") == "? How dens"


def test_a_misspelt_word_is_underlined_and_put_right_by_keys(installation: Atrium, browser: Browser, desk: str) -> None:
    with signed_in(browser, installation, "radiologist") as page:
        begin(page, desk)
        page.fill("#section-findings", "No pnemothorax, and a frobozzular change.")
        page.wait_for_selector("#checks .misspelt")
        page.focus("#section-impression")
        marks = page.locator(".spelling-layer .is-unknown")
        assert marks.all_inner_texts() == ["pnemothorax", "frobozzular"]
        page.focus("#section-indication")
        page.keyboard.press("F7")
        page.wait_for_selector("[data-suggestion=pneumothorax]")
        picture(page, "spelling")
        page.keyboard.press("1")
        assert page.input_value("#section-findings") == "No pneumothorax, and a frobozzular change."
        page.wait_for_selector("#checks .misspelt[data-word=pnemothorax]", state="detached")
        page.keyboard.press("F7")
        page.wait_for_selector("#spelling .spelling-word:has-text('frobozzular')")
        page.keyboard.press("a")
        expect(page.locator("#checks .misspelt")).to_have_count(0)
        assert page.evaluate("() => document.activeElement.name") == "findings"
