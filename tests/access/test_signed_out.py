"""What a person whose session has ended hears on a page that is still open."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.mark.parametrize("path", ["/notifications/bell/", "/worklist/", "/reports/1.1/panel/"])
def test_a_part_of_a_page_says_so_instead_of_showing_the_sign_in(client: Client, path: str) -> None:
    assert client.get(path, headers={"HX-Request": "true"}).status_code == 401
    assert client.get(path, headers={"Accept": "application/json"}).status_code == 401
    page = client.get(path)
    assert page.status_code == 302, "a whole page leads to the sign-in"
