"""The worklist at a million studies on PostgreSQL: first paint, filters, deep windows, next case.

Server time per request, from the middleware to the rendered page, in this process; the median and the 95th
percentile of wall and CPU time. ``--explain`` prints the plan of each list's query. Goals: 300 ms for the first paint,
50 ms for a filter.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from tests.services.postgresql import postgresql

STUDIES = 1_000_000
OPEN = 10_000
ROUNDS = 15
FIRST_PAINT_MS, FILTER_MS = 300, 50

# Rows as ingest and the worklist leave them, made inside the database. %(…)s: studies, open ones, sites.
PATIENTS = """
INSERT INTO studies_patient (site_id, identity, patient_id, issuer_of_patient_id, patient_name, patient_birth_date,
    patient_sex)
SELECT CASE WHEN n %% 3 = 0 THEN %(south)s ELSE %(north)s END, '|P' || n, 'P' || n, '',
    (ARRAY['Andersson','Bergqvist','Carlberg','Dahlstrom','Engstrom','Falk','Gronlund','Hallberg','Isaksson','Jansson',
    'Kronberg','Lindqvist','Malmgren','Nordin','Olsson','Persson','Rosen','Sandberg','Tornqvist','Wallin'])[1 + n %% 20]
    || n %% 977 || '^' || (ARRAY['Anna','Bo','Cecilia','David','Eva','Fredrik','Greta','Hans'])[1 + n %% 8],
    DATE '1940-01-01' + n %% 25000, CASE WHEN n %% 2 = 0 THEN 'F' ELSE 'M' END
FROM generate_series(1, %(patients)s) AS n
"""
STUDY_ROWS = r"""
INSERT INTO studies_study (site_id, patient_id, study_instance_uid, patient_id_value, patient_name,
    patient_name_search, study_date, study_time, accession_number, study_id, study_description, institution_name,
    referring_physician_id, referring_physician_name, modalities_in_study, number_of_series, number_of_instances,
    has_conflict, status, status_at, priority, body_part_examined, corrections, attributes, received_at, updated_at,
    source_ae_title, tier, used_at)
SELECT p.site_id, p.id, '1.2.826.0.1.3680043.10.1637.' || n, p.patient_id, p.patient_name, upper(p.patient_name),
    CURRENT_DATE - (n / 550), TIME '06:00' + (n %% 50000) * INTERVAL '1 second', 'A' || n, n::text,
    (ARRAY['CT head without contrast','CT thorax','MR knee right','MR brain','XR chest PA','US abdomen',
    'Mammography bilateral','CT abdomen and pelvis','MR lumbar spine','XR hand left'])[1 + n %% 10], 'Hospital',
    (SELECT min(id) FROM studies_referringphysician) + n %% 2, 'Okafor^Ada',
    (ARRAY['CT','CT','MR','MR','DX','US','MG','CT','MR','DX'])[1 + n %% 10], 2, 200 + n %% 100, false,
    CASE WHEN n <= %(open)s THEN (ARRAY['arrived','arrived','arrived','in_reading','preliminary'])[1 + n %% 5]
    ELSE 'final' END, now(),
    (ARRAY['STAT','HIGH','ROUTINE','ROUTINE','ROUTINE','ROUTINE','LOW','MEDIUM'])[1 + (n / 7) %% 8],
    (ARRAY['HEAD','CHEST','KNEE','BRAIN','CHEST','ABDOMEN','BREAST','ABDOMEN','LSPINE','HAND'])[1 + n %% 10],
    '{}', '{}', now() - n * INTERVAL '160 seconds', now(), '', 'hot', now()
FROM generate_series(1, %(studies)s) AS n JOIN studies_patient p ON p.identity = '|P' || (1 + n %% %(patients)s)
"""
CLOCKS = """
INSERT INTO worklists_caseclock (study_id, due_at) SELECT id, received_at + INTERVAL '1 day' FROM studies_study
WHERE status IN ('arrived', 'in_reading', 'preliminary')
"""

# Ten thousand orders whose images aren't there yet among those that studies answered.
ORDERS = """
INSERT INTO orders_order (site_id, patient_id, patient_name_search, study_id,
    accession_number, placer_order_number, filler_order_number,
    study_instance_uid, requested_procedure_id, requested_procedure_description, requested_procedure_code, priority,
    indication, referring_physician_id, referring_physician_name, patient_class, patient_location, admission_id, status,
    status_at, scheduled_at, modality, placed_at)
SELECT site_id, patient_id, patient_name_search, CASE WHEN n <= %(open)s THEN NULL ELSE id END,
    'O' || n, '', '', '2.25.' || n, 'R' || n,
    study_description, '{}', priority, '', referring_physician_id, referring_physician_name, 'O', '', '',
    CASE WHEN n <= %(open)s THEN (ARRAY['scheduled','scheduled','arrived','in_progress'])[1 + n %% 4]
    ELSE 'completed' END, now(), now() + (n %% 20000) * INTERVAL '2 minutes', left(modalities_in_study, 16), now()
FROM (SELECT row_number() OVER (ORDER BY id) AS n, * FROM studies_study) AS s WHERE n <= %(orders)s
"""

LISTS = {
    "all, newest first": "",
    "unread, STAT first": "status=arrived&sort=priority,date",
    "open CT head": "status=arrived&modality=CT&body_part=HEAD&sort=priority,date",
    "open, words in the description": "status=arrived&description=brain&sort=priority,date",
    "open STAT of one site": "status=arrived&status=in_reading&priority=STAT&site=north&sort=date",
    "mine and nobody's": "status=arrived&assigned=me_or_nobody&sort=priority,-arrival",
    "reading group": "status=arrived&group=GROUP&sort=priority,date",
    "by name, two letters": "q=li",
    "by name, whole": "q=lindqvist432",
    "by patient ID": "q=P4711",
    "by accession number": "accession_number=A765432",
    "modality, whole archive": "modality=MG",
    "words, whole archive": "description=lumbar",
    "words that nobody has, open": "status=arrived&description=zebra",
    "words that nobody has, whole archive": "description=zebra",
    "modality that nobody has, whole archive": "modality=XA",
    "body part that nobody has, whole archive": "body_part=FOOT",
    "referrer whom nobody knows": "referrer=zz",
    "one month": "since=2024-03-01&until=2024-03-31",
    "referrer": "referrer=okaf",
    "sorted by name": "sort=name",
    "three columns": "status=arrived&sort=modality,priority,-date",
    "open, due first": "status=arrived&sort=due",
    "sorted by arrival": "sort=-arrival",
    "sorted by patient ID": "sort=patient_id",
    "sorted by accession number": "sort=-accession",
    "sorted by day, then modality": "sort=-date,modality",
    "scheduled, STAT first": "status=scheduled&sort=priority,date",
    "scheduled, of a day": "status=scheduled&since=TODAY&sort=date",
    "scheduled, by name": "status=scheduled&q=lindq",
    "scheduled and unread": "status=scheduled&status=arrived&sort=priority,date",
}


def main(arguments: list[str] | None = None) -> None:
    """Start PostgreSQL, fill it and measure in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks worklist", description=__doc__)
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        measure(options.studies, options.rounds, explain=options.explain)
        return
    with postgresql() as url, tempfile.TemporaryDirectory(prefix="atrium-bench-") as data:
        environment = {**os.environ, "ATRIUM_DATABASE_URL": url, "ATRIUM_DATA": data, "ATRIUM_SECRET_KEY": "benchmark"}
        command = [sys.executable, "-m", "benchmarks.worklist", "--measure", "--studies", str(options.studies)]
        command += ["--rounds", str(options.rounds), *(["--explain"] if options.explain else [])]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


def measure(studies: int, rounds: int, *, explain: bool) -> None:
    """Fill the database and print a table; exits with 1 when a goal is missed."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.test import Client

    settings.ALLOWED_HOSTS.append("testserver")
    call_command("migrate", verbosity=0)
    group = _fill(studies)
    client = Client()
    client.force_login(_reader(), backend=settings.AUTHENTICATION_BACKENDS[0])
    print(f"{studies:,} studies, {OPEN:,} open; server time in ms over {rounds} rounds")
    print("| list | p50 | p95 | CPU p50 | goal |\n| --- | ---: | ---: | ---: | ---: |")
    missed = [_row("first paint", lambda: client.get("/worklist/"), rounds, FIRST_PAINT_MS)]
    for title, query in LISTS.items():
        address = "/worklist/?" + _query(query, group)
        missed.append(_row(title, _filtered(client, address), rounds, FILTER_MS))
    deep = _deep(client, "/worklist/?status=arrived&sort=priority,date", 60)
    missed.append(_row("60 windows down, unread", _filtered(client, deep), rounds, FILTER_MS))
    missed.append(_row("next cases", lambda: client.get("/worklist/upcoming/"), rounds, FILTER_MS))
    if explain:
        _explain(group)
    sys.exit(1 if any(missed) else 0)


def _reader() -> Any:
    from accounts.models import User

    return User.objects.get(username="radiologist")


def _fill(studies: int) -> int:
    """Write sites, people, patients, studies and clocks; give a reading group's id."""
    from django.db import connection

    from accounts.models import Site
    from studies.models import ReferringPhysician
    from studies.worklists.models import ReadingGroup
    from tests.factories import make_people

    sites = {slug: Site.objects.create(slug=slug, name=f"{slug.title()} Hospital") for slug in ("north", "south")}
    people = make_people(sites)
    ReferringPhysician.objects.create(site=sites["south"], name="Okafor^Ada", name_search="OKAFOR^ADA")
    values = {
        "north": sites["north"].pk,
        "south": sites["south"].pk,
        "studies": studies,
        "patients": max(studies // 3, 1),
        "open": min(OPEN, studies),
        "orders": studies // 2,
    }
    started = time.monotonic()
    with connection.cursor() as cursor:
        for statement in (PATIENTS, STUDY_ROWS, CLOCKS, ORDERS):
            cursor.execute(statement, values)
        cursor.execute("VACUUM ANALYZE")
    print(f"filled in {time.monotonic() - started:.0f} s", file=sys.stderr)
    group = ReadingGroup.objects.create(site=sites["north"], name="Neuro", modalities=["CT", "MR"], words=["head"])
    group.members.add(people["radiologist"])
    return int(group.pk)


def _query(query: str, group: int) -> str:
    return query.replace("GROUP", str(group)).replace("TODAY", date.today().isoformat())


def _filtered(client: Any, address: str) -> Callable[[], Any]:
    return lambda: client.get(address, HTTP_HX_REQUEST="true")


def _deep(client: Any, address: str, windows: int) -> str:
    """Follow the list's own continuation so many times."""
    for _ in range(windows):
        page = client.get(address, HTTP_HX_REQUEST="true").content.decode()
        following = re.search(r'class="more-rows" hx-get="([^"]+)"', page)
        if following is None:
            break
        address = html.unescape(following[1])
    return address


def _row(title: str, request: Callable[[], Any], rounds: int, goal: int) -> bool:
    walls, cpus = [], []
    for number in range(rounds + 2):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = request()
        assert answer.status_code == 200, (title, answer.status_code)
        if number >= 2:
            walls.append((time.perf_counter() - wall) * 1000)
            cpus.append((time.process_time() - cpu) * 1000)
    median, late = statistics.median(walls), statistics.quantiles(walls, n=20)[18]
    print(f"| {title} | {median:.0f} | {late:.0f} | {statistics.median(cpus):.0f} | {goal} |", flush=True)
    return median > goal


def _explain(group: int) -> None:
    from django.http import QueryDict

    from accounts.principals import principal_of_user
    from studies.worklists import selectors
    from studies.worklists.scheduled import named_as_studies, orders_asked_for
    from studies.worklists.views import asked

    principal = principal_of_user(_reader())
    for title, query in LISTS.items():
        data = QueryDict(_query(query, group))
        _form, criteria, order = asked(data, principal, selectors.preference_of(principal.user))
        orders = orders_asked_for(principal, criteria)
        of_orders = None if orders is None else named_as_studies(orders)
        for found in (selectors.worklist(principal, criteria), of_orders):
            if found is not None and not found.query.is_empty():
                rows = found.order_by(*order.order).values_list("pk", flat=True)[: selectors.PAGE + 1]
                print(f"\n### {title}\n{rows.explain(analyze=True)}")


if __name__ == "__main__":
    main()
