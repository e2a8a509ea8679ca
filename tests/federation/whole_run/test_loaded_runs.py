"""A run that starts from another private run's encoder: what it states is the maximum over whose
examples its clients may have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import StopAfter, make_images, tiny_config

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.errors import PrivacyError
from secure_fl.federation.factory import example_plan
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.ledger import PrivacyLedger

DELTA = 1e-5


def config(**tables: dict[str, Any]) -> FederationConfig:
    base: dict[str, dict[str, Any]] = {
        "partition": {"kind": "natural"},
        "pretrain": {"rounds": 1, "batch_size": 32},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
        "privacy": {"unit": "example", "noise": 4.0, "epsilon": 100.0},
    }
    return tiny_config(
        **{name: {**base.get(name, {}), **tables.get(name, {})} for name in base | tables}
    )


def loading(folder: Path, **privacy: Any) -> FederationConfig:
    tables: dict[str, dict[str, Any]] = {
        "pretrain": {"mode": "load", "load_from": str(folder)},
        "privacy": privacy,
    }
    return config(**tables, pools={"enabled": True, "start": "pretrained", "rounds": 2, "count": 1})


def dealt(*, swapped: bool = False) -> Dataset:
    """Two clients, one with five times the other's examples, so that their steps cost
    differently.
    """
    images = make_images(240)
    parts = [(images.x[:40], images.y[:40]), (images.x[40:], images.y[40:])]
    return Dataset.from_clients(parts[::-1] if swapped else parts, classes=3)


@pytest.fixture
def uneven() -> Dataset:
    return dealt()


def released(folder: Path) -> dict[int, list[Any]]:
    """Each client's own events."""
    ledger = PrivacyLedger.load(folder / "ledger.json")
    return {
        client: [
            release.event
            for release in ledger.releases
            if client in release.subjects and not release.key.startswith("loaded/")
        ]
        for client in (0, 1)
    }


def test_what_is_stated_is_the_largest_of_all_that_may_be(tmp_path: Path, uneven: Dataset) -> None:
    Federation(config(), data=uneven).run(tmp_path / "first")
    stated = (
        Federation(loading(tmp_path / "first"), data=dealt(swapped=True))
        .run(tmp_path / "second")
        .summary.privacy
    )
    first, second = released(tmp_path / "first"), released(tmp_path / "second")
    assert first[0] != first[1], "or there is nothing to tell apart"
    every = [
        epsilon([*earlier, *own], DELTA, Adjacency.ZERO_OUT)
        for earlier in first.values()
        for own in second.values()
    ]
    assert stated.epsilon == pytest.approx(max(every))
    own = [
        epsilon([*first[client], *second[client]], DELTA, Adjacency.ZERO_OUT) for client in (0, 1)
    ]
    assert max(own) < max(every) * 0.99, (
        "the planted fault: each client charged for what a client of its number released"
    )


def test_the_noise_is_calibrated_to_every_history(
    tmp_path: Path, uneven: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each history gets a noise of its own here; a client takes the largest, which fits
    them all.
    """
    Federation(config(), data=uneven).run(tmp_path / "first")
    asked: dict[Any, float] = {}

    def search(
        events: object,
        epsilon: float,
        delta: float,
        adjacency: Adjacency,
        *,
        also: Any,
        remedy: str,
    ) -> float:
        return asked.setdefault(also, 8.0 + len(asked))

    monkeypatch.setattr(example_plan, "noise_of_run", search)
    Federation(loading(tmp_path / "first", noise=None, epsilon=99.0), data=uneven).run(
        tmp_path / "second"
    )
    ledger = PrivacyLedger.load(tmp_path / "second" / "ledger.json")
    assert set(asked) == set(ledger.brought(PrivacyUnit.EXAMPLE, 0, Adjacency.ZERO_OUT))
    assert sorted(asked.values()) == [8.0, 9.0]
    noises = {
        event.noise_multiplier
        for events in released(tmp_path / "second").values()
        for event in events
    }
    assert noises == {9.0}


def test_an_encoder_counts_as_private_by_how_it_was_trained_not_by_a_ledger_beside_it(
    tmp_path: Path, uneven: Dataset
) -> None:
    """A ledger of other releases, such as of sketches, says nothing of how the encoder
    came about.
    """
    first = tmp_path / "first"
    Federation(config(privacy={"unit": "none"}), data=uneven).run(first)
    Federation(config(), data=uneven).run(tmp_path / "private")
    (first / "ledger.json").write_bytes((tmp_path / "private" / "ledger.json").read_bytes())
    with pytest.raises(PrivacyError, match="was trained without privacy"):
        Federation(loading(first), data=uneven).run()


def test_a_stopped_run_that_loaded_an_encoder_goes_on_without_the_earlier_folder(
    tmp_path: Path, uneven: Dataset
) -> None:
    Federation(config(), data=uneven).run(tmp_path / "first")
    chosen = loading(tmp_path / "first")
    with pytest.raises(KeyboardInterrupt):
        Federation(chosen, data=uneven, callbacks=[StopAfter(1)]).run(tmp_path / "second")
    (tmp_path / "first").rename(tmp_path / "moved")
    result = Federation(chosen, data=uneven).run(tmp_path / "second", resume=True)
    assert (
        sum(
            release.key.startswith("loaded/")
            for release in PrivacyLedger.load(tmp_path / "second" / "ledger.json").releases
        )
        == 2
    )
    assert result.summary.privacy.epsilon > 0
