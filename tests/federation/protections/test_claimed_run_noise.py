"""Whole runs from outside: the noise and the shares that the ledger charges for are in the model
and in the opened sums.

Each kind of fault is planted once and must be found: half of the noise, clients that leave out
their share, and shares that are sized for more clients than are certain.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from pathlib import Path

import pytest
import torch
from federation.protections.noised_client import CLIENTS, CLIP, EXAMPLES, LR, config
from privacy.claimed_noise import Measured, noise_over_claim, quiet, times
from torch import Tensor

from secure_fl import Federation
from secure_fl.engines import embedded
from secure_fl.federation.steps.pretrain import Pretrain
from secure_fl.models.state import to_vector
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.privacy.events import GaussianEvent, IntegerEvent
from secure_fl.privacy.integer_noise import skellam
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.secure_sum.grid import Blocks


def run_noise(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Measured:
    """Noise in the encoder that a run of several clients ends with, over what its ledger says that
    each of them was charged.
    """
    encoders = []
    for name in ("noised", "clear"):
        monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(3))
        federation = Federation(config({"name": "masked"}), data=EXAMPLES)
        length = len(to_vector(federation.factory.encoder_projector()))
        with quiet(monkeypatch, length=length if name == "clear" else 10**9):
            encoders.append(to_vector(federation.run(folder / name).encoder))
    variance = 0.0
    for release in PrivacyLedger.load(folder / "noised" / "ledger.json").releases:
        event, examples = release.event, len(federation.clients[release.subjects[0]].train)
        assert isinstance(event, GaussianEvent)
        variance += (
            event.steps
            * (LR * event.noise_multiplier * CLIP / (event.sampling_rate * examples) / CLIENTS) ** 2
        )
    return noise_over_claim(encoders[0] - encoders[1], sqrt(variance))


def test_a_run_s_model_holds_the_noise_that_its_ledger_charges(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_noise(monkeypatch, tmp_path).require()


def test_a_run_with_half_of_its_noise_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    times(monkeypatch, 0.5)
    with pytest.raises(AssertionError, match="of what is claimed"):
        run_noise(monkeypatch, tmp_path).require()


def level_run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[list[Measured], Measured]:
    """Each client's own share of the noise, and the noise in the opened sum, over what the ledger
    counts on.
    """
    sent: list[tuple[Blocks, Blocks]] = []
    opened: list[Blocks] = []
    noised, applied = ClientLevel.noised, Pretrain.apply

    def watched(self: ClientLevel, blocks: Blocks, stream: NoiseStream) -> Blocks:
        sent.append((blocks, noised(self, blocks, stream)))
        return sent[-1][1]

    monkeypatch.setattr(ClientLevel, "noised", watched)
    monkeypatch.setattr(
        Pretrain,
        "apply",
        lambda self, state, summed: (opened.append(summed.total), applied(self, state, summed))[1],
    )
    Federation(config(privacy={"unit": "client", "min_clients": 3}), data=EXAMPLES).run(folder)
    event = PrivacyLedger.load(folder / "ledger.json").releases[0].event
    assert isinstance(event, IntegerEvent)
    own = sqrt(event.own_share().variance)
    shares = [noise_over_claim(vector(made) - vector(blocks), own) for blocks, made in sent]
    total = vector(opened[0]) - torch.stack([vector(blocks) for blocks, _ in sent]).sum(0)
    return shares, noise_over_claim(total, own * sqrt(len(sent)))


def vector(blocks: Blocks) -> Tensor:
    return torch.cat([blocks.head, blocks.shared, blocks.pools.flatten()]).double()


def test_every_client_adds_its_share_and_the_sum_holds_them_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shares, total = level_run(monkeypatch, tmp_path / "run")
    assert len(shares) == CLIENTS
    for measured in (*shares, total):
        measured.require()


def _leaves_out(monkeypatch: pytest.MonkeyPatch, silent: Callable[[int], bool]) -> None:
    """Plant a fault: clients, by the order in which they answer, that send their update without
    a share.
    """
    noised, calls = ClientLevel.noised, [0]

    def faulty(self: ClientLevel, blocks: Blocks, stream: NoiseStream) -> Blocks:
        calls[0] += 1
        return blocks if silent(calls[0] - 1) else noised(self, blocks, stream)

    monkeypatch.setattr(ClientLevel, "noised", faulty)


@pytest.mark.parametrize(
    "silent",
    [lambda client: client == 2, lambda client: client > 0],
    ids=["one share missing", "only one share"],
)
def test_shares_that_are_missing_are_found_in_the_sum_and_at_the_client(
    silent: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _leaves_out(monkeypatch, silent)
    shares, total = level_run(monkeypatch, tmp_path / "run")
    assert [measured.ratio == 0 for measured in shares] == [
        silent(client) for client in range(CLIENTS)
    ]
    with pytest.raises(AssertionError, match="of what is claimed"):
        total.require()


def test_shares_for_more_clients_than_are_certain_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sized for the whole roster, where n_min − c are counted on."""
    monkeypatch.setattr(
        ClientLevel, "_share", property(lambda self: skellam(self.variance / self.roster))
    )
    shares, total = level_run(monkeypatch, tmp_path / "run")
    for measured in (*shares, total):
        with pytest.raises(AssertionError, match="of what is claimed"):
            measured.require()
