"""What Prometheus reads: every number is there, with labels of bounded sets."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from operations.pems import tls_files
from operations.watched import ROUNDS, Watched

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from secure_fl.crypto.envelope import Phase
from secure_fl.errors import FileError
from secure_fl.operations.expiry import days_left, expiries
from secure_fl.operations.metrics import MOST, NAMES, Metrics
from secure_fl.operations.view import OTHER, View
from secure_fl.operations.watching import watch_of

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    families = text_string_to_metric_families(metrics.page().decode())
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Samples, Samples]:
    folder = tmp_path_factory.mktemp("fl")
    made = Watched(folder)
    tls = tls_files(folder, days=20)
    found = [Metrics(watch.view, tls=tls) for watch in (made.server, made.site)]
    made.server.observers, made.site.observers = (found[0],), (found[1],)
    made.run()
    return samples(found[0]), samples(found[1])


def test_every_name_is_there_and_no_other(pages: tuple[Samples, Samples]) -> None:
    ends = ("_bucket", "_sum", "_count")
    seen = set()
    for name, _ in (*pages[0], *pages[1]):
        base = next((name.removesuffix(end) for end in ends if name.endswith(end)), name)
        seen.add(base)
    labelled = {"secure_fl_lost_total", "secure_fl_refusals_total"}  # nothing was lost, it may be
    assert seen | labelled == set(NAMES)


def test_numbers_are_those_of_the_federation(pages: tuple[Samples, Samples]) -> None:
    server, site = pages
    assert server["secure_fl_rounds_total", (("outcome", "done"),)] == ROUNDS
    assert server["secure_fl_attempts_total", ()] == ROUNDS
    assert server["secure_fl_members", ()] == 4
    assert server["secure_fl_round", ()] == site["secure_fl_round", ()] == ROUNDS
    assert server["secure_fl_pool_members", (("pool", "0"),)] == 3
    assert server["secure_fl_peer_connected", (("peer", "north"),)] == 1
    assert server["secure_fl_over", ()] == 1
    assert server["secure_fl_failed", ()] == 0
    up = (("direction", "in"), ("phase", "upload"))
    assert server["secure_fl_messages_total", up] == 4 * ROUNDS
    assert server["secure_fl_bytes_total", up] > 0
    assert server["secure_fl_phase_seconds_count", (("phase", "upload"),)] == ROUNDS


def test_epsilon_is_a_sites_and_never_the_servers(pages: tuple[Samples, Samples]) -> None:
    server, site = pages
    assert not [name for name, _ in server if "epsilon" in name]
    for number in range(2):
        party = (("party", f"client-000{number}"),)
        assert site["secure_fl_epsilon_budget", party] == 50.0
        assert 0 < site["secure_fl_epsilon_spent", party] < 50.0
    assert len([name for name, _ in site if name == "secure_fl_epsilon_spent"]) == 2


def test_a_certificate_that_ends_is_seen(pages: tuple[Samples, Samples]) -> None:
    assert 19 < pages[0]["secure_fl_certificate_days", (("certificate", "own"),)] < 20


def test_labels_are_bounded(tmp_path: Path) -> None:
    watch = watch_of(None)
    metrics = Metrics(watch.view)
    watch.observers = (metrics,)
    for number in range(3 * MOST):
        watch.back(f"site-{number}")
        watch.lost(f"site-{number}", f"reason-{number}")
    found = samples(metrics)
    reasons = {dict(labels)["reason"] for name, labels in found if name == "secure_fl_lost_total"}
    assert len(reasons) == MOST + 1
    assert OTHER in reasons
    assert len([name for name, _ in found if name == "secure_fl_peer_connected"]) == MOST


def test_reconnects_are_not_first_connections() -> None:
    watch = watch_of(None)
    metrics = Metrics(watch.view)
    watch.observers = (metrics,)
    watch.back("north")
    assert samples(metrics)["secure_fl_reconnects_total", ()] == 0
    watch.lost("north", "silent")
    watch.back("north")
    assert samples(metrics)["secure_fl_reconnects_total", ()] == 1


def test_phases_are_a_closed_list(pages: tuple[Samples, Samples]) -> None:
    known = {phase.name.lower() for phase in Phase} | {"unreadable"}
    for page in pages:
        assert {dict(labels).get("phase", "upload") for _, labels in page} <= known


def test_a_damaged_ledger_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("{}")
    view = View("site", "north", 0.0, ledgers={"a": tmp_path / "ledger.json"})
    assert not [name for name, _ in samples(Metrics(view)) if "epsilon" in name]


def test_days_are_counted_to_the_first_certificate_that_ends(tmp_path: Path) -> None:
    tls = tls_files(tmp_path, days=10)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=11)
    assert -1.1 < days_left(tls.certificate, later) < -0.9
    tls.certificate.write_text("nothing")
    with pytest.raises(FileError, match="holds no certificate"):
        days_left(tls.certificate)
    assert set(expiries(tls)) == {"authority"}
