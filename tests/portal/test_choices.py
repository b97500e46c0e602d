"""No choice of a form is a row of dashes: what an empty choice means is said in words."""

from __future__ import annotations

from typing import Any

import pytest
from django import forms

FORMS = (
    "/worklist/sharing/group/new/",
    "/worklist/sharing/rule/new/",
    "/worklist/sharing/shift/new/",
    "/worklist/sharing/target/new/",
    "/network/nodes/new/",
    "/network/rules/routing/new/",
    "/network/rules/prefetch/new/",
    "/orders/new/",
)


class Form(forms.Form):
    wanted = forms.ChoiceField(choices=[("", "---------"), ("a", "A")])
    optional = forms.ChoiceField(required=False, choices=[("", "---------"), ("Group", [("b", "B & C")])])


def test_an_empty_choice_is_a_word() -> None:
    html = Form({"optional": "b"}).as_p()
    assert "---" not in html
    assert ">Choose…</option>" in html
    assert ">None</option>" in html
    assert '<option value="b" selected>B &amp; C</option>' in html
    assert '<option value="" selected>Choose…' in Form({}).as_p()


@pytest.mark.django_db
def test_no_page_of_forms_has_dashes(client_of: Any, north: Any) -> None:
    admin = client_of("admin")
    for path in FORMS:
        answer = admin.get(path)
        assert answer.status_code == 200, path
        assert "<select" in answer.content.decode(), path
        assert "---------" not in answer.content.decode(), path
