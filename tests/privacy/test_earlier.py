"""An encoder that was loaded: each client is charged the costliest history that its examples may
have, after composition.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.errors import PrivacyError
from secure_fl.privacy.accounting import Charge, epsilon, merged
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.calibration import smallest_noise
from secure_fl.privacy.earlier import taken_over
from secure_fl.privacy.events import Event, GaussianEvent, IntegerEvent, PureEvent
from secure_fl.privacy.ledger import Budget, Charges, PrivacyLedger, Release

EXAMPLE, CLIENT, ZERO, DELTA = PrivacyUnit.EXAMPLE, PrivacyUnit.CLIENT, Adjacency.ZERO_OUT, 1e-5
BUDGET = Budget(1e4, DELTA, EXAMPLE, ZERO)
SMALL, LARGE = GaussianEvent(0.47, 0.002, 4), GaussianEvent(3.0, 1.0, 2)
"""Alone the first costs more; followed by `LATER`, the second does."""
LATER = GaussianEvent(6.0, 1.0, 8)


def ran(*events_by_client: list[Event], ledger: PrivacyLedger | None = None) -> PrivacyLedger:
    """A run in which each client released so much, a round each; on top of what `ledger` holds."""
    ledger = ledger or PrivacyLedger(BUDGET)
    for client, events in enumerate(events_by_client):
        for number, event in enumerate(events):
            ledger.record(
                Release(
                    f"pretrain/{number}/{client}",
                    "pretrain",
                    number,
                    "training",
                    EXAMPLE,
                    (client,),
                    event,
                    "declared",
                )
            )
    return ledger


def after(earlier: PrivacyLedger, clients: int) -> PrivacyLedger:
    ledger = PrivacyLedger(BUDGET)
    for release in taken_over(earlier, range(clients)):
        ledger.record(release)
    return ledger


def test_the_costliest_alone_is_not_the_costliest_in_company() -> None:
    alone = [epsilon([event], DELTA, ZERO) for event in (SMALL, LARGE)]
    together = [epsilon([event, LATER], DELTA, ZERO) for event in (SMALL, LARGE)]
    assert alone[0] > alone[1] * 1.01
    assert together[1] > together[0] * 1.01, "or this test shows nothing"
    ledger = ran([LATER], [LATER], ledger=after(ran([SMALL], [LARGE]), 2))
    assert (
        ledger.spent(EXAMPLE, 0, DELTA, ZERO)
        == ledger.spent(EXAMPLE, 1, DELTA, ZERO)
        == pytest.approx(max(together))
    )
    costliest_alone = ran(
        [SMALL, LATER]
    )  # the planted fault: everybody charged what the costliest client was
    assert costliest_alone.spent(EXAMPLE, 0, DELTA, ZERO) < max(together) * 0.99


EVENTS = [SMALL, LARGE, LATER, PureEvent(0.3, True, 1)]


@settings(max_examples=25)
@given(
    first=st.lists(st.lists(st.sampled_from(EVENTS), max_size=3), min_size=1, max_size=3),
    second=st.lists(st.sampled_from(EVENTS), max_size=2),
)
def test_every_client_pays_the_maximum_over_what_its_examples_may_have_gone_through(
    first: list[list[Event]], second: list[Event]
) -> None:
    ledger = ran([], second, ledger=after(ran(*first), 2)) if any(first) else ran([], second)
    expected = max(epsilon([*history, *second], DELTA, ZERO, fine=False) for history in first)
    assert ledger.spent(EXAMPLE, 1, DELTA, ZERO, fine=False) == pytest.approx(expected)


@settings(max_examples=25)
@given(
    runs=st.lists(
        st.lists(st.lists(st.sampled_from(EVENTS), min_size=1, max_size=2), min_size=2, max_size=2),
        min_size=3,
        max_size=3,
    )
)
def test_chains_of_loads_keep_every_history_apart(runs: list[list[list[Event]]]) -> None:
    ledger = PrivacyLedger(BUDGET)
    for events in runs:
        ledger = ran(*events, ledger=after(ledger, 2) if ledger.releases else ledger)
    possible: list[list[Event]] = [[]]
    for events in runs:
        possible = [[*history, *each] for history in possible for each in events]
    expected = {merged(Charge(event, ZERO) for event in history) for history in possible}
    found = after(ledger, 4).histories(EXAMPLE, 3, ZERO)
    assert set(found) <= expected
    assert all(any(_within(history, kept) for kept in found) for history in expected)


def _within(history: Charges, other: Charges) -> bool:
    """Whether nothing was released more often in one than in the other."""
    one, most = (
        {(event.with_count(1), relation): event.count for event, relation in charges}
        for charges in (history, other)
    )
    return all(count <= most.get(kind, 0) for kind, count in one.items())


def test_equal_histories_and_parts_of_others_are_kept_once() -> None:
    earlier = ran([SMALL, SMALL], [SMALL], [SMALL, SMALL], [LARGE, SMALL])
    taken = taken_over(earlier, range(3))
    assert {release.history for release in taken} == {0, 1}
    assert sorted(release.event.count for release in taken) == [2, 4, 8]
    assert all(release.subjects == (0, 1, 2) for release in taken)


def test_the_budget_holds_for_every_history(tmp_path: Path) -> None:
    limit = epsilon([SMALL, LATER], DELTA, ZERO) * 1.001
    assert limit < epsilon([LARGE, LATER], DELTA, ZERO)
    ledger = after(ran([SMALL], [LARGE]), 1)
    release = Release("pretrain/0/0", "pretrain", 0, "training", EXAMPLE, (0,), LATER, "declared")
    with pytest.raises(PrivacyError, match="would pass"):
        ledger.would_exceed([release], Budget(limit, DELTA, EXAMPLE, ZERO))
    ledger.record(release)
    ledger.budget = Budget(limit, DELTA, EXAMPLE, ZERO)
    assert any("is passed" in problem for problem in ledger.verify().problems)
    ledger = after(ran([SMALL], [LARGE]), 1)
    ledger.save(tmp_path / "ledger.json")
    assert PrivacyLedger.load(tmp_path / "ledger.json").histories(
        EXAMPLE, 0, ZERO
    ) == ledger.histories(EXAMPLE, 0, ZERO)


def test_calibration_fits_every_history() -> None:
    brought = after(ran([SMALL], [LARGE]), 1).brought(EXAMPLE, 0, ZERO)
    assert len(brought) == 2

    def plan(noise: float) -> list[Event]:
        return [GaussianEvent(noise, 1.0, 20)]

    noises = [smallest_noise(plan, 4.0, DELTA, ZERO, also=history) for history in brought]
    assert noises[1] > noises[0] * 1.01
    for history in brought:
        assert (
            epsilon([*(charge.event for charge in history), *plan(max(noises))], DELTA, ZERO) <= 4.0
        )
    assert epsilon([LARGE, *plan(noises[1] * 0.99)], DELTA, ZERO) > 4.0


def test_examples_behind_client_level_noise_keep_their_own_relation() -> None:
    skellam = IntegerEvent(
        "skellam", 64e6, 1000.0, 1e5, 2000.0, 2e5, parties=4, dimension=10_000, releases=1
    )
    earlier = PrivacyLedger()
    for number in range(3):
        earlier.record(
            Release(
                f"cluster/{number}",
                "cluster",
                number,
                "update",
                CLIENT,
                (0, 1),
                skellam,
                "derived",
                EXAMPLE,
            )
        )
    ledger = after(earlier, 2)
    assert ledger.spent(EXAMPLE, 0, DELTA, ZERO) == epsilon(
        [skellam.times(3)], DELTA, Adjacency.REPLACE_ONE
    )
    assert ledger.spent(CLIENT, 1, DELTA, ZERO) == epsilon([skellam.times(3)], DELTA, ZERO)
    assert PrivacyLedger(BUDGET).brought(EXAMPLE, 0, ZERO) == ((),)
