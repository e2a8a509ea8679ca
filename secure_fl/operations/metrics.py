"""Numbers for Prometheus (extra `metrics`).

**Guarantee.** Every label has a bounded set of values: phases, reasons and outcomes from closed
lists, machines and parties of the roster, at most `MOST` of each; what is beyond is `other`. ε is
a number of a site about its own clients, read from their ledgers; a server has none.

**Not covered.** Who may read the page: it is served on this machine's own address unless its
operator says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_fl import __version__
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.errors import PrivacyError, need
from secure_fl.operations.expiry import expiries
from secure_fl.operations.view import OTHER, Course, Observer, View

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

MOST = 256
"""Values that a label may have."""
_QUICK = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800, 7200)
NAMES = (
    "secure_fl_phase_seconds", "secure_fl_round_seconds", "secure_fl_handling_seconds",
    "secure_fl_bytes_total", "secure_fl_messages_total", "secure_fl_lost_total",
    "secure_fl_reconnects_total", "secure_fl_refusals_total", "secure_fl_rounds_total",
    "secure_fl_attempts_total", "secure_fl_peer_connected", "secure_fl_members",
    "secure_fl_round", "secure_fl_step", "secure_fl_number", "secure_fl_over",
    "secure_fl_failed", "secure_fl_pool_members", "secure_fl_epsilon_spent",
    "secure_fl_epsilon_budget", "secure_fl_certificate_days", "secure_fl_loop_age_seconds",
    "secure_fl_build_info",
)  # fmt: skip
"""Every metric, as a page of Prometheus names it; histograms without their suffixes."""


class Metrics(Observer):
    """Counts what it is told. Raises DependencyError: prometheus-client is not installed.

    Args:
        view: what is known, of which a page shows the newest.
        tls: of this end, whose certificates' days are counted.
        age: seconds since the driver's loop has turned.
    """

    def __init__(
        self,
        view: View,
        *,
        tls: TlsFiles | None = None,
        age: Callable[[], float] = lambda: 0.0,
    ) -> None:
        need("prometheus_client", "metrics", "metrics")
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Histogram,
            disable_created_metrics,
        )

        disable_created_metrics()  # type: ignore[no-untyped-call] # half of the page, and nobody's question

        self._view, self._tls, self._age = view, tls, age
        self._ledgers = _Ledgers()
        self.registry = kept = CollectorRegistry()
        self._labels: dict[str, set[str]] = {}

        def histogram(name: str, text: str, *labels: str) -> Any:
            return Histogram(f"secure_fl_{name}", text, labels, registry=kept, buckets=_QUICK)

        def counter(name: str, text: str, *labels: str) -> Any:
            return Counter(f"secure_fl_{name}", text, labels, registry=kept)

        way = ("phase", "direction")
        self._phase = histogram("phase_seconds", "waited for a phase of a round", "phase")
        self._round = histogram("round_seconds", "of an attempt at a round", "outcome")
        self._handling = histogram("handling_seconds", "that a party takes a message", "phase")
        self._bytes = counter("bytes_total", "of messages", *way)
        self._messages = counter("messages_total", "by phase and direction", *way)
        self._lost = counter("lost_total", "machines that went", "reason")
        self._reconnects = counter("reconnects_total", "machines that came back")
        self._refusals = counter("refusals_total", "messages turned away here", "reason")
        self._rounds = counter("rounds_total", "attempts that ended", "outcome")
        self._attempts = counter("attempts_total", "attempts that were called")
        kept.register(_Now(self._now))

    def page(self) -> bytes:
        """What Prometheus reads."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def peer(self, view: View, name: str, reason: str) -> None:
        if view.peers[name].there:
            self._reconnects.inc(float(view.peers[name].losses > 0))
        else:
            self._lost.labels(self._bounded("reason", reason)).inc()

    def message(
        self, view: View, direction: str, phase: str, size: int, seconds: float | None
    ) -> None:
        self._messages.labels(phase, direction).inc()
        self._bytes.labels(phase, direction).inc(size)
        if seconds is not None:
            self._handling.labels(phase).observe(seconds)

    def refused(self, view: View, facts: Mapping[str, object], reason: str, count: int) -> None:
        self._refusals.labels(reason).inc(count)

    def began(self, view: View, course: Course) -> None:
        self._attempts.inc()

    def ended(self, view: View, course: Course) -> None:
        self._rounds.labels(course.outcome).inc()
        self._round.labels(course.outcome).observe(course.seconds)
        for phase, leg in course.legs.items():
            self._phase.labels(phase).observe(leg.seconds)

    def _bounded(self, label: str, value: str) -> str:
        """A label's value; `other` where it has enough of them."""
        known = self._labels.setdefault(label, set())
        if value not in known and len(known) >= MOST:
            return OTHER
        known.add(value)
        return value

    def _now(self) -> Iterator[Metric]:
        """What is read when a page is asked for."""
        view, place = self._view, self._view.place
        yield _gauge("build_info", "of this software", {__version__: 1}, "version")
        yield _gauge("loop_age_seconds", "since the driver's loop has turned", self._age())
        yield _gauge("over", "1 where the federation has ended here", float(view.over))
        yield _gauge("failed", "1 where it ended early", float(bool(view.over and view.why)))
        yield _gauge("number", "of the last attempt", view.number)
        if place is not None:
            yield _gauge("step", "of the program", place.step)
            yield _gauge("round", "rounds finished in the step", place.round)
        there = {name: float(peer.there) for name, peer in list(view.peers.items())}
        yield _gauge("peer_connected", "1 where a machine is there", there, "peer")
        if view.role == "server":
            yield _gauge("members", "parties that have joined", len(view.members))
        pools = {str(pool): count for pool, count in list(view.pools.items())}
        yield _gauge("pool_members", "as opened last, with its noise", pools, "pool")
        days = expiries(self._tls)
        yield _gauge("certificate_days", "until a certificate expires", days, "certificate")
        if view.role != "server":
            spent, budgets = self._ledgers.spent(view.ledgers)
            yield _gauge("epsilon_spent", "of the dearest example or client", spent, "party")
            yield _gauge("epsilon_budget", "that the ledger is held to", budgets, "party")


class _Now:
    """A collector of numbers that are looked up when they are asked for."""

    def __init__(self, numbers: Any) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        return iter(self._numbers())

    def describe(self) -> list[Metric]:
        """Nothing: names are not looked up before they are needed."""
        return []


class _Ledgers:
    """ε of a site's clients, computed anew where a ledger has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float, float]] = {}

    def spent(self, paths: Mapping[str, Path]) -> tuple[dict[str, float], dict[str, float]]:
        """What is spent, and budgets, by party; of a ledger that cannot be read nothing."""
        for name, path in paths.items():
            changed = path.stat().st_mtime_ns if path.is_file() else None
            if changed is None or self._known.get(name, (None,))[0] == changed:
                continue
            found = _spent_in(path)
            if found is not None:
                self._known[name] = (changed, *found)
        known = {name: self._known[name] for name in paths if name in self._known}
        spent = {name: one[1] for name, one in known.items()}
        return spent, {name: one[2] for name, one in known.items()}


def _spent_in(path: Path) -> tuple[float, float] | None:
    from secure_fl.privacy.ledger import PrivacyLedger

    try:
        ledger = PrivacyLedger.load(path)
    except PrivacyError:
        return None
    if ledger.budget is None:
        return None
    return ledger.maximum(ledger.budget, fine=False), ledger.budget.epsilon


def _gauge(name: str, text: str, values: float | Mapping[str, float], label: str = "") -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    if not isinstance(values, Mapping):
        return GaugeMetricFamily(f"secure_fl_{name}", text, value=values)
    found = GaugeMetricFamily(f"secure_fl_{name}", text, labels=[label])
    for value in sorted(values)[:MOST]:
        found.add_metric([value], values[value])
    return found
