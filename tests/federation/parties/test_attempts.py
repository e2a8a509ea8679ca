"""A round that one client makes fail is tried again without it: with the thresholds it had, once a
release, and only while nothing was opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.test_secure_runs import secure
from helpers import weights
from secure_sum.round_helpers import each_alone

from secure_fl import Dataset, Federation
from secure_fl.crypto import shares as shamir
from secure_fl.crypto.shares import Share
from secure_fl.engines import embedded
from secure_fl.federation.parties import server_flow
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum import setup
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.messages import RoundRefusedError
from secure_fl.secure_sum.plan import RoundPlan

BAD = "client-0005"
SHORT: dict[str, Any] = {
    "pretrain": {"rounds": 3},
    "pools": {"enabled": False},
    "evaluate": {"enabled": False},
}


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(clients, t, n_min) of every attempt's plan."""
    seen: list[tuple[int, int, int]] = []
    honest = server_flow.call_facts

    def call_facts(one: RoundPlan, *more: Any) -> dict[str, Any]:
        seen.append((len(one.cohort), one.shares_needed, one.survivors_needed))
        return honest(one, *more)

    monkeypatch.setattr(server_flow, "call_facts", call_facts)
    return seen


def lies(
    monkeypatch: pytest.MonkeyPatch, rounds: Callable[[int], bool], names: tuple[str, ...] = (BAD,)
) -> None:
    """In these rounds, some clients deal shares of another seed of block 0 than the one they
    committed to: known before any pool is opened.
    """
    honest = RoundClient._share

    def share(self: RoundClient, data: bytes) -> bytes:
        if self.name not in names or not rounds(self._plan.round):
            return honest(self, data)
        keys = self._public()
        self._state.self_seeds[0] = os.urandom(32)
        monkeypatch.setattr(self, "_public", lambda: keys)
        return honest(self, data)

    monkeypatch.setattr(RoundClient, "_share", share)


@pytest.mark.parametrize("protection", ["masked", "bfv+masked"])
@pytest.mark.parametrize("folder", [False, True])
def test_the_round_is_tried_again_without_who_made_it_fail(
    protection: str,
    folder: bool,
    plans: list[Any],
    images: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lies(monkeypatch, lambda number: number == 1)
    run = Federation(secure(protection, **SHORT), data=images).run(
        tmp_path / "run" if folder else None
    )
    refused = [record.metrics.refused for record in run.records]
    assert refused[0] is refused[2] is None
    assert refused[1] == (f"{BAD} attempt 1: not-proved",)
    assert plans == [(6, 5, 5), (6, 5, 5), (5, 5, 5), (6, 5, 5)]
    costs = [(record.clients, record.bytes_up) for record in run.records]
    assert [clients for clients, _ in costs] == [6, 6, 6]
    assert costs[1][1] > 1.4 * costs[2][1], "uploads come twice, and openings once"


def test_the_round_tried_again_is_the_round_of_the_others(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit what it is where the client drops out in the first place."""
    config = secure("masked", **SHORT)
    with monkeypatch.context() as patched:
        lies(patched, lambda number: number == 1)
        again = Federation(config, data=images).run()
    honest = RoundClient.upload

    def upload(self: RoundClient, vector: Any) -> memoryview:
        made = bytearray(honest(self, vector))
        made[-1] ^= self._plan.round == 1 and self.name == BAD
        return memoryview(made)

    monkeypatch.setattr(RoundClient, "upload", upload)
    dropped = Federation(config, data=images).run()
    assert dropped.records[1].metrics.refused == (f"{BAD} upload: bit-flipped",)
    assert torch.equal(weights(again), weights(dropped))


@pytest.mark.parametrize("unit", ["example", "client"])
def test_private_answers_are_given_again_and_charged_once(
    unit: str, images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    privacy = {"unit": unit, "epsilon": 500.0} | (
        {"noise": 2.0, "min_clients": 5} if unit == "client" else {}
    )
    config = secure("masked", privacy=privacy, **SHORT)
    plain = Federation(config, data=images).run(tmp_path / "plain")
    lies(monkeypatch, lambda number: number == 1)
    tried = Federation(config, data=images).run(tmp_path / "tried")
    assert tried.records[1].metrics.refused == (f"{BAD} attempt 1: not-proved",)
    charged = [
        len(RunFolder.open(tmp_path / name).ledger.read_text().splitlines())
        for name in ("tried", "plain")
    ]
    assert charged[0] == charged[1] > 3
    assert tried.summary.privacy.claims == plain.summary.privacy.claims


def test_private_answers_that_are_not_stored_are_not_given_again(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies(monkeypatch, lambda number: number == 1)
    with pytest.raises(RoundRefusedError, match="not-proved"):
        Federation(
            secure("masked", privacy={"unit": "example", "epsilon": 500.0}, **SHORT), data=images
        ).run()


def test_nothing_is_summed_again_once_pools_may_be_open(
    plans: list[Any], images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sums of the same updates, of six clients and of five, would show the sixth's: shares of
    no secret of block 1 end the run.
    """
    honest, honest_split, dealt = RoundClient._share, shamir.split, list[int]()

    def share(self: RoundClient, data: bytes) -> bytes:
        dealt[:] = [0] if self.name == BAD and self._plan.round == 1 else []
        return honest(self, data)

    def split(*arguments: Any, **rest: Any) -> list[Share]:
        shares = honest_split(*arguments, **rest)
        if dealt:
            dealt[0] += 1
            return (
                [replace(each, value=each.value + each.index**50) for each in shares]
                if dealt[0] == 3
                else shares
            )
        return shares

    monkeypatch.setattr(RoundClient, "_share", share)
    monkeypatch.setattr(setup, "split_many", each_alone(split))
    with pytest.raises(RoundRefusedError, match="false-shares") as caught:
        Federation(secure("masked", **SHORT), data=images).run()
    assert caught.value.blamed == (BAD,)
    assert [clients for clients, *_ in plans] == [6, 6]


def test_too_few_are_left_without_who_made_it_fail(
    plans: list[Any], images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies(monkeypatch, lambda number: number >= 1, (BAD, "client-0004"))
    with pytest.raises(RoundRefusedError, match="not-proved"):
        Federation(secure("masked", **SHORT), data=images).run()
    assert plans[-1][0] >= 5


def test_noised_counts_are_opened_once(
    images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference of two would be one client's choice under its own share of the noise alone."""
    privacy = {
        "unit": "client",
        "epsilon": 500.0,
        "noise": 2.0,
        "min_clients": 5,
        "adaptive_clip": True,
    }
    lies(monkeypatch, lambda number: number == 1)
    with pytest.raises(RoundRefusedError, match="not-proved") as caught:
        Federation(secure("masked", privacy=privacy, **SHORT), data=images).run(tmp_path / "run")
    assert caught.value.blamed == (BAD,)
