"""Teaching files hold no patient."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from typing import Any
from unittest import mock

import pydicom
import pytest

from studies.archive import objects
from studies.events import deliver_due
from studies.models import Instance, Study
from studies.sharing import teaching
from studies.sharing.models import TeachingCase
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
WORDS = {"title": "Solid nodule", "level": "resident", "diagnosis": "Granuloma", "keywords": "chest"}


@pytest.fixture
def case(north: Any, ingest_files: Any, client_of: Any) -> TeachingCase:
    ingest_files(
        north,
        make_instance(
            StudyInstanceUID="1.1", PatientName="Geheim^Eva", PatientID="G1", Modality="CT", BurnedInAnnotation="NO"
        ),
    )
    answer = client_of("radiologist").post("/studies/1.1/teach/", WORDS)
    assert answer.status_code == 302, answer.content
    deliver_due()
    return TeachingCase.objects.get()


def test_the_copy_is_another_study_that_names_nobody(case: TeachingCase) -> None:
    assert case.state == "ready"
    assert case.study is not None
    assert case.study.site.is_teaching
    instance = Instance.objects.get(series__study=case.study)
    dataset = pydicom.dcmread(BytesIO(objects.read_instance(instance)))
    assert "Geheim" not in str(dataset)
    assert dataset.PatientIdentityRemoved == "YES"
    assert dataset.StudyInstanceUID != "1.1"
    assert Study.objects.get(study_instance_uid="1.1").patient_name == "Geheim^Eva"


def test_a_second_delivery_makes_no_second_copy(case: TeachingCase) -> None:
    from studies.sharing.teaching import make_copy

    TeachingCase.objects.update(state="preparing")
    make_copy({"case": case.pk})
    assert Study.objects.filter(site__is_teaching=True).count() == 1


def test_teachers_of_any_site_open_it_and_others_dont(case: TeachingCase, client_of: Any) -> None:
    assert case.study is not None
    uid = case.study.study_instance_uid
    for person, status in (("southradiologist", 200), ("resident", 200), ("referrer", 403), ("technologist", 403)):
        assert client_of(person).get(f"/teaching/{case.pk}/").status_code == status, person
    assert client_of("southradiologist").get(f"/dicom-web/studies/{uid}/metadata").status_code == 200
    assert client_of("technologist").get(f"/dicom-web/studies/{uid}/metadata").status_code == 404
    assert client_of("southradiologist").get("/studies/1.1/").status_code == 404


def test_words_find_a_case(case: TeachingCase, client_of: Any) -> None:
    assert "Solid nodule" in client_of("resident").get("/teaching/?q=granuloma+ct").content.decode()
    assert "Solid nodule" not in client_of("resident").get("/teaching/?q=fracture").content.decode()


def test_only_its_author_changes_it(case: TeachingCase, client_of: Any) -> None:
    assert client_of("southradiologist").post(f"/teaching/{case.pk}/edit/", WORDS).status_code == 404
    assert client_of("southradiologist").post(f"/teaching/{case.pk}/delete/").status_code == 404
    client_of("radiologist").post(f"/teaching/{case.pk}/edit/", {**WORDS, "title": "Benign nodule"})
    assert TeachingCase.objects.get().title == "Benign nodule"


def test_it_waits_on_no_worklist(case: TeachingCase, client_of: Any) -> None:
    assert "Teaching files" not in client_of("radiologist").get("/worklist/").content.decode().split("<table")[-1]


def test_a_study_teaches_twice_and_each_case_has_its_own_copy(case: TeachingCase, client_of: Any) -> None:
    client_of("resident").post("/studies/1.1/teach/", {**WORDS, "title": "Another view"})
    deliver_due()
    other = TeachingCase.objects.get(title="Another view")
    assert other.state == "ready"
    assert other.study is not None
    assert case.study is not None
    assert other.study.patient_id_value != case.study.patient_id_value, "nothing says that it's the same person"


def test_a_removed_case_takes_its_copy_along_and_leaves_the_original(case: TeachingCase, client_of: Any) -> None:
    assert case.study is not None
    uid = case.study.study_instance_uid
    client_of("radiologist").post(f"/teaching/{case.pk}/delete/")
    assert not TeachingCase.objects.exists()
    assert client_of("radiologist").get(f"/dicom-web/studies/{uid}/metadata").status_code == 404
    assert list(Study.objects.values_list("study_instance_uid", flat=True)) == ["1.1"]


def test_a_case_removed_while_its_copy_is_made_leaves_none(north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(north, make_instance(StudyInstanceUID="1.1", Modality="CT"))
    client_of("radiologist").post("/studies/1.1/teach/", WORDS)
    case = TeachingCase.objects.get()

    def removed_meanwhile(*_: Any) -> Any:
        yield from copies(case, Counter())
        TeachingCase.objects.all().delete()

    copies = teaching._copies
    with mock.patch.object(teaching, "_copies", removed_meanwhile):
        teaching.make_copy({"case": case.pk})
    assert list(Study.objects.values_list("study_instance_uid", flat=True)) == ["1.1"]
