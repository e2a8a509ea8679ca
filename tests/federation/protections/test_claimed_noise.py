"""Clients from outside: the noise and the rate that the ledger charges for are in what is released.

Each kind of fault is planted once and must be found: no noise, halved noise, everybody taking part
at a rate that is charged as less, a mechanism other than the one that is charged, and a statistic,
a count or a sketch without noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
import torch
from federation.parts import drawn, engine_of
from federation.protections.noised_client import CLIP, EXAMPLES, LR, STILL, Client, config
from privacy.claimed_noise import Measured, noise_over_claim, quiet, share_over_claim, times
from torch import Tensor

from secure_fl import Federation
from secure_fl.config import FederationConfig
from secure_fl.engines import embedded
from secure_fl.federation.asks import GiveCentre, GiveSketch, TrainPool
from secure_fl.federation.steps.pools import draw_pools
from secure_fl.objectives.random_features import KernelMean
from secure_fl.objectives.unit_objectives import CrossEntropy
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.engine import PrivateTraining
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.mechanisms import mechanism, per_example
from secure_fl.privacy.mechanisms.per_example import AdaptiveBound, PerExample
from secure_fl.privacy.noise import NoiseSource, NoiseStream


def gradient_noise(
    settings: FederationConfig,
    monkeypatch: pytest.MonkeyPatch,
    share: float = 0.0,
    units: Callable[[int], float] = float,
) -> Measured:
    """Noise in the change that a client releases over the claimed one.

    Args:
        share: of the budget, that goes to a statistic.
        units: from the number of examples, that the sampling rate is of.
    """
    asked = Client(settings, monkeypatch)
    noised, event = asked.pretrained()
    with quiet(monkeypatch, length=len(noised)):
        clear, _ = Client(settings, monkeypatch).pretrained()
    expected = event.sampling_rate * units(asked.examples)
    return noise_over_claim(
        noised - clear,
        LR * sqrt(event.steps) * event.noise_multiplier / sqrt(1 - share) * CLIP / expected,
    )


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], float, Callable[[int], float]]] = {
    "per-example": ({"name": "masked"}, {}, 0.0, float),
    "released statistics": ({"name": "align_uniform"}, {"statistic_share": 0.3}, 0.3, float),
    "group": ({"name": "nt_xent"}, {"mechanism": "group"}, 0.0, lambda examples: examples // 4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_that_leave_a_client_hold_the_noise_that_is_charged(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, privacy, share, units = KINDS[kind]
    gradient_noise(config(objective, privacy), monkeypatch, share, units).require()


def _other_mechanism(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is charged is made by another path than what is done, as it once was."""
    event = PrivateTraining.event.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        PrivateTraining,
        "event",
        property(
            lambda self: replace(event(self), noise_multiplier=2 * event(self).noise_multiplier)
        ),
    )


def _half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written = mechanism.write_gradients
    monkeypatch.setattr(
        per_example,
        "write_gradients",
        lambda model, sums, deviation, *rest: written(model, sums, deviation / 2, *rest),
    )


def _fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    event = PrivateTraining.event.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        PrivateTraining,
        "event",
        property(lambda self: replace(event(self), steps=2 * event(self).steps)),
    )


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no noise": lambda patch: times(patch, 1e-9),
    "half of the noise": lambda patch: times(patch, 0.5),
    "half written": _half_written,
    "another mechanism charged": _other_mechanism,
    "another number of steps charged": _fewer_steps,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_noise_that_is_not_what_is_charged_is_found(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    measured = gradient_noise(config({"name": "masked"}), monkeypatch)
    assert abs(measured.ratio - 1) > 10 * measured.error
    with pytest.raises(AssertionError, match="of what is claimed"):
        measured.require()


# How often examples take part


def taking_part(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Clipped contributions of examples that are all alike, counted from the released sum, over the
    rate that is charged.
    """
    alike = replace(EXAMPLES, x=EXAMPLES.x[:1].expand_as(EXAMPLES.x).clone(), y=EXAMPLES.y * 0)
    pools = {"enabled": True, "count": 1, "start": "random", **STILL, "local_epochs": 20}
    settings = config(
        privacy={"clip": 1e-2},
        pools=pools,
        pretrain={**STILL, "mode": "none"},
        objective={"name": "align_uniform"},
    )
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(0))
    federation = Federation(settings, data=alike, augment=lambda x: x)
    (client,) = engine_of(federation, clients=federation.clients[:1]).clients
    ask = TrainPool(0, draw_pools(federation.factory, drawn(federation)))
    event = client.protection.releases(ask, 0)[-1].event
    assert isinstance(event, GaussianEvent)
    examples = len(federation.clients[0].train)
    with quiet(monkeypatch):
        trained = client.protection.train_pool(ask, 0, 0)
    moved = float(trained.pooled.double().norm()) / LR * event.sampling_rate * examples / 1e-2
    return share_over_claim(moved, examples * event.steps, event.sampling_rate)


def test_examples_take_part_as_often_as_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    taking_part(monkeypatch).require(rounding=0.01)


def test_a_rate_of_1_that_is_charged_as_less_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        per_example, "draw_examples", lambda count, rate, stream: torch.arange(count)
    )
    measured = taking_part(monkeypatch)
    assert measured.ratio > 2
    with pytest.raises(AssertionError, match="of what is claimed"):
        measured.require(rounding=0.01)


# What is released beside gradients


def statistic_noise(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Noise in the first statistic that a client's losses were given; later ones are of
    another model.
    """
    seen: list[Tensor] = []
    mean = KernelMean.mean

    def watched(
        self: KernelMean, noised_sum: Tensor, expected_units: float, deviation: float
    ) -> Tensor:
        seen.append(noised_sum)
        return mean(self, noised_sum, expected_units, deviation)

    monkeypatch.setattr(KernelMean, "mean", watched)
    settings = config(privacy={"statistic_share": 0.3})
    _, event = Client(settings, monkeypatch).pretrained()
    noised = seen[0]
    seen.clear()
    with quiet(monkeypatch, length=len(noised)):
        Client(settings, monkeypatch).pretrained()
    return noise_over_claim(noised - seen[0], event.noise_multiplier / sqrt(0.3))


def test_the_statistic_holds_its_share_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic_noise(monkeypatch).require()


def without(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """Plant a fault: draws of one length are left out."""
    gaussian = NoiseStream.gaussian
    monkeypatch.setattr(
        NoiseStream,
        "gaussian",
        lambda self, shape, deviation: (
            gaussian(self, shape, deviation) * (tuple(shape) != (length,))
        ),
    )


def test_a_statistic_without_noise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, 256)
    with pytest.raises(AssertionError, match=r"0\.000 ± 0\.044 of what is claimed"):
        statistic_noise(monkeypatch).require()


def heads(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], PerExample, GaussianEvent]:
    """The counts that moved a head's bound, the mechanism as public numbers give it, and what
    was charged.
    """
    counts: list[float] = []
    follow = AdaptiveBound.follow
    pools = {
        "enabled": True,
        "count": 1,
        "start": "random",
        **STILL,
        "local_epochs": 30,
        "lr": 1e-13,
    }
    asked = Client(
        config(
            privacy={"clip": 1e6, "adaptive_clip": True},
            pools=pools,
            pretrain={**STILL, "mode": "none"},
        ),
        monkeypatch,
    )
    ask = TrainPool(0, draw_pools(asked.federation.factory, drawn(asked.federation)))
    event = asked.client.protection.releases(ask, 0)[-1].event
    assert isinstance(event, GaussianEvent)
    with monkeypatch.context() as patch:
        patch.setattr(
            AdaptiveBound,
            "follow",
            lambda self, count, units: (counts.append(count), follow(self, count, units))[1],
        )
        asked.client.protection.train_pool(ask, 0, 0)
    public = PerExample(
        CrossEntropy(),
        asked.examples,
        event.sampling_rate,
        event.noise_multiplier,
        AdaptiveBound(1e6),
    )
    return counts, public, event


def count_noise(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Noise in the counts: all norms are far within the bound, so that without it they are halves
    of the numbers drawn.
    """
    counts, public, event = heads(monkeypatch)
    with quiet(monkeypatch, length=1):
        clear = heads(monkeypatch)[0]
    assert len(counts) == event.steps
    assert public.count_noise is not None
    bit = public.sensitivity(Adjacency.ADD_REMOVE)[1]
    assert (public.gradient_noise**-2 + (bit / public.count_noise) ** 2) ** -0.5 == pytest.approx(
        event.noise_multiplier
    )
    return noise_over_claim(torch.tensor(counts) - torch.tensor(clear), public.count_noise)


def test_the_count_of_adaptive_clipping_holds_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    count_noise(monkeypatch).require()


@pytest.mark.parametrize(
    "fault",
    [lambda patch: without(patch, 1), lambda patch: times(patch, 0.5)],
    ids=["none", "half"],
)
def test_a_count_without_its_noise_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="of what is claimed"):
        count_noise(monkeypatch).require()


def sketch_noise(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Noise in the centre and in the sketch that clients give, over many draws, each over its
    own claim.
    """
    settings = config(
        pools={"enabled": True, "start": "sketch", "count": 2}, pretrain={**STILL, "mode": "none"}
    )
    ratios: list[Tensor] = []
    for seed in range(12):
        for ask in (GiveCentre(), GiveSketch(torch.zeros(16, dtype=torch.float64))):
            noised, event, examples = sketched(settings, ask, monkeypatch, seed)
            with quiet(monkeypatch):
                clear, _, _ = sketched(settings, ask, monkeypatch, seed)
            ratios.append((noised - clear)[noised != 0] * examples / event.noise_multiplier)
    return noise_over_claim(torch.cat(ratios), 1.0)


def sketched(
    settings: FederationConfig, ask: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> tuple[Tensor, GaussianEvent, int]:
    asked = Client(settings, monkeypatch, seed)
    sketch = asked.client.sketch
    (release,) = sketch.releases(ask)
    assert isinstance(release.event, GaussianEvent)
    given = sketch.centre(ask) if isinstance(ask, GiveCentre) else sketch.give(ask)[:-3]
    return given.double(), release.event, asked.examples


def test_centres_and_sketches_hold_the_noise_that_is_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sketch_noise(monkeypatch).require()


@pytest.mark.parametrize("factor", [1e-9, 0.5], ids=["none", "half"])
def test_a_sketch_without_its_noise_is_found(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, factor)
    with pytest.raises(AssertionError, match="of what is claimed"):
        sketch_noise(monkeypatch).require()
