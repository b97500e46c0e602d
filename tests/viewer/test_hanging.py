"""What hangs beside what."""

from __future__ import annotations

from typing import Any

import pytest

from studies.models import Study
from studies.viewer import hanging
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def add(ingest_files: Any, site: Any, uid: str, **attributes: Any) -> Study:
    ingest_files(site, make_instance(PatientID="P", StudyInstanceUID=uid, **attributes))
    return Study.objects.get(study_instance_uid=uid)


def test_the_same_region_and_modality_hangs_before_newer_studies_of_another(
    north: Any, people: Any, ingest_files: Any
) -> None:
    study = add(ingest_files, north, "1.1", StudyDate="20260601", StudyDescription="CT chest", Modality="CT")
    chest = add(ingest_files, north, "1.2", StudyDate="20240101", StudyDescription="CT chest", Modality="CT")
    head = add(ingest_files, north, "1.3", StudyDate="20260101", StudyDescription="CT head", Modality="CT")
    add(ingest_files, north, "1.4", StudyDate="20260301", StudyDescription="US neck", Modality="US")
    add(ingest_files, north, "1.5", StudyDate="20270101", StudyDescription="CT chest", Modality="CT")
    assert hanging.relevant_priors(principal_of(people["radiologist"]), study) == [chest, head]


def test_a_ct_hangs_beside_its_prior_and_alone_without_one(
    north: Any, people: Any, ingest_files: Any, client_of: Any
) -> None:
    study = add(ingest_files, north, "1.1", StudyDate="20260601", StudyDescription="CT chest")
    address = f"/viewer/open/{study.study_instance_uid}/"
    assert "hangingProtocolId=default" in client_of("radiologist").get(address)["Location"]
    add(ingest_files, north, "1.2", StudyDate="20250601", StudyDescription="CT chest")
    opened = client_of("radiologist").get(address)["Location"]
    assert "StudyInstanceUIDs=1.1,1.2&" in opened
    assert "hangingProtocolId=atrium.compare" in opened
    phone = {"User-Agent": "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36"}
    alone = client_of("radiologist").get(f"{address}?sop=1.2.3&frame=x", headers=phone)["Location"]
    assert "StudyInstanceUIDs=1.1&hangingProtocolId=default&site=north&sop=1.2.3&frame=1" in alone


def test_an_open_viewer_is_told_where_it_goes_on_and_as_whose(north: Any, ingest_files: Any, client_of: Any) -> None:
    add(ingest_files, north, "1.1", StudyDate="20260601", StudyDescription="CT chest")
    desk = "98a75376-ae73-439b-bdaf-445dfe2ae501"
    browser = client_of("radiologist")
    answer = browser.get(f"/viewer/open/1.1/?desk={desk}", headers={"accept": "application/json"})
    assert answer.json()["address"] == browser.get(f"/viewer/open/1.1/?desk={desk}")["Location"]
    assert answer["Cache-Control"] == "no-store"
    edition = answer.json()["edition"]
    assert f'"{edition}"' in browser.get("/viewer/app-config.js").content.decode()
    other = client_of("resident").get("/viewer/open/1.1/", headers={"accept": "application/json"}).json()
    assert other["edition"] != edition, "another person's viewer is loaded anew"


def test_what_a_person_chose_is_remembered_for_them_alone(north: Any, ingest_files: Any, client_of: Any) -> None:
    study = add(ingest_files, north, "1.1", StudyDate="20260601")
    browser = client_of("radiologist")
    sent = {"study": study.study_instance_uid, "protocol": hanging.FOUR_UP}
    assert browser.post("/viewer/preferences/", sent).status_code == 204
    assert "atrium.fourUp" in browser.get("/viewer/open/1.1/")["Location"]
    assert "atrium.fourUp" not in client_of("resident").get("/viewer/open/1.1/")["Location"]
    assert browser.post("/viewer/preferences/", {**sent, "protocol": "evil"}).status_code == 422


@pytest.mark.parametrize("protocol", hanging.PROTOCOLS)
def test_every_layout_on_offer_is_known_to_the_viewer_and_remembered(
    north: Any, ingest_files: Any, client_of: Any, protocol: str
) -> None:
    add(ingest_files, north, "1.1", StudyDate="20260601")
    add(ingest_files, north, "1.2", StudyDate="20250601")
    browser = client_of("radiologist")
    assert f'"{protocol}"' in browser.get("/viewer/app-config.js").content.decode().rpartition("atriumBridge(")[2]
    assert browser.post("/viewer/preferences/", {"study": "1.1", "protocol": protocol}).status_code == 204
    assert f"hangingProtocolId={protocol}&" in browser.get("/viewer/open/1.1/")["Location"]
    assert f'<option value="{protocol}" selected>' in browser.get("/studies/1.1/").content.decode()


def test_a_prior_of_another_site_hangs_only_for_who_may_see_it(
    north: Any, south: Any, people: Any, ingest_files: Any
) -> None:
    study = add(ingest_files, north, "1.1", StudyDate="20260601")
    add(ingest_files, south, "1.2", StudyDate="20250601")
    assert hanging.relevant_priors(principal_of(people["resident"]), study) == []
