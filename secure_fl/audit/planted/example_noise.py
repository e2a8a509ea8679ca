"""Broken noise, sampling, clipping and charges of private training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.privacy import accounting
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.mechanisms import group, per_example, released_statistics
from secure_fl.privacy.mechanisms.mechanism import write_gradients
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.sampling import draw_examples, draw_groups
from secure_fl_kernels import per_sample

Plant = Callable[[], Any]


def small(adjacency: str = "zero-out", **settings: Any) -> FederationConfig:
    """Pre-training on digits by released statistics."""
    return FederationConfig(
        **{
            "partition": {"clients": 4},
            "objective": {"name": "spectral_contrastive"},
            "model": {"features": 16},
            "pretrain": {"rounds": 2, "batch_size": 64},
            "pools": {"enabled": False},
            "privacy": {"unit": "example", "noise": 2.0, "epsilon": 500.0, "adjacency": adjacency},
            **settings,
        }
    )


def full(adjacency: str) -> FederationConfig:
    """Where everybody is in every step, of which there are several."""
    pretrain = {"rounds": 8, "batch_size": 100_000, "local_epochs": 4}
    return small(adjacency, pretrain=pretrain)


def _gaussian(factor: float) -> Plant:
    """All normal noise, scaled."""
    honest = NoiseStream.gaussian

    def drawn(stream: NoiseStream, shape: Any, deviation: float) -> Tensor:
        return factor * honest(stream, shape, deviation)

    return lambda: patch.object(NoiseStream, "gaussian", drawn)


def _gradients_alone() -> Any:
    """The statistic is released as it is."""

    def gradients(own: Any, model: nn.Module, views: Tensor, stream: NoiseStream) -> None:
        summed = own._sum(model, views, lambda total: total)
        deviation = own.gradient_noise * own.bound
        write_gradients(model, summed.gradients, deviation, own.expected_units, stream)

    return patch.object(ReleasedStatistics, "gradients", gradients)


def _statistic_alone() -> Any:
    """Gradients are released as they are, but for 10⁻⁹ of the noise."""
    honest = write_gradients

    def written(model: Any, sums: Any, deviation: float, units: float, stream: Any) -> None:
        honest(model, sums, 1e-9 * deviation, units, stream)

    return patch.object(released_statistics, "write_gradients", written)


@contextmanager
def _everybody() -> Iterator[None]:
    """No coin decides who is in a step; the ledger still charges for the rate."""

    def drawn(count: int, _rate: float, _stream: NoiseStream) -> Tensor:
        return torch.arange(count)

    with ExitStack() as planted:
        for module in (released_statistics, per_example):
            planted.enter_context(patch.object(module, "draw_examples", drawn))
        yield


@contextmanager
def _same_batch() -> Iterator[None]:
    """The coins of the first step are used for all."""
    honest, kept = draw_examples, dict[tuple[int, float], Tensor]()

    def drawn(count: int, rate: float, stream: NoiseStream) -> Tensor:
        if (count, rate) not in kept:
            kept[count, rate] = honest(count, rate, stream)
        return kept[count, rate]

    with patch.object(released_statistics, "draw_examples", drawn):
        yield


def _same_noise() -> Any:
    """Every step adds the noise of the first."""
    honest, kept = NoiseStream.gaussian, dict[tuple[int, ...], Tensor]()

    def drawn(stream: NoiseStream, shape: Any, deviation: float) -> Tensor:
        key = tuple(shape)
        if key not in kept:
            kept[key] = honest(stream, shape, 1.0)
        return deviation * kept[key]

    return patch.object(NoiseStream, "gaussian", drawn)


def _same_seed() -> Any:
    """All clients and rounds draw from one key."""

    def stream(_own: Releasing, _ask: Any, _phase: str, _number: int) -> NoiseStream:
        return NoiseStream(bytes(32), private=False)

    return patch.object(Releasing, "stream", stream)


def _one_number() -> Any:
    """The second half of what a release adds is its first half again."""
    honest = NoiseStream.gaussian

    def drawn(stream: NoiseStream, shape: Any, deviation: float) -> Tensor:
        made = honest(stream, shape, deviation)
        half = made.flatten()[: (made.numel() + 1) // 2]
        return half.repeat(2)[: made.numel()].view_as(made)

    return patch.object(NoiseStream, "gaussian", drawn)


@contextmanager
def unclipped() -> Iterator[None]:
    """Every clip factor is 1, but for what is not finite."""

    def factors(square_norms: Tensor, _bound: float) -> Tensor:
        return square_norms.isfinite().to(square_norms)

    def summed(rows: Tensor, _square_norms: Tensor, _bound: float) -> Tensor:
        return rows.nan_to_num(0, 0, 0).sum(0)

    with (
        patch.object(per_sample, "clip_factors", factors),
        patch.object(per_sample, "clip_and_sum", summed),
    ):
        yield


def _empty_unnoised() -> Any:
    """A step in which nobody is drawn changes nothing."""
    honest = ReleasedStatistics.gradients

    def gradients(own: Any, model: nn.Module, views: Tensor, stream: NoiseStream) -> None:
        if len(views):
            honest(own, model, views, stream)
            return
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    return patch.object(ReleasedStatistics, "gradients", gradients)


def _half_charged() -> Any:
    """Every second step is not in the ledger."""

    def event(own: Any, steps: int) -> GaussianEvent:
        return GaussianEvent(own.noise_multiplier, own.sampling_rate, max(1, steps // 2))

    return patch.object(ReleasedStatistics, "event", event)


def _wider_charged() -> Any:
    """The ledger says twice the noise that the mechanism adds."""

    def event(own: Any, steps: int) -> GaussianEvent:
        return GaussianEvent(2 * own.noise_multiplier, own.sampling_rate, steps)

    return patch.object(ReleasedStatistics, "event", event)


@contextmanager
def _charged_as_absent() -> Iterator[None]:
    """The account takes a replaced example for a missing one."""
    honest = accounting._Parts.of

    def parts(charges: Any) -> Any:
        absent = Adjacency.ZERO_OUT
        return honest([charge._replace(adjacency=absent) for charge in charges])

    accounting._epsilon.cache_clear()
    try:
        with patch.object(accounting._Parts, "of", parts):
            yield
    finally:
        accounting._epsilon.cache_clear()


def _biases_bare() -> Any:
    """Vectors of weights get no noise, matrices do."""

    def written(
        model: nn.Module, sums: Any, deviation: float, units: float, stream: NoiseStream
    ) -> None:
        trained = [each for each in model.parameters() if each.requires_grad]
        for parameter, total in zip(trained, sums, strict=True):
            noise = stream.gaussian(parameter.shape, deviation) * (parameter.ndim > 1)
            parameter.grad = (total + noise.to(total)) / units

    return patch.object(released_statistics, "write_gradients", written)


def _one_for_all_layers() -> Any:
    """Every layer has the first numbers of one vector of noise."""

    def written(
        model: nn.Module, sums: Any, deviation: float, units: float, stream: NoiseStream
    ) -> None:
        trained = [each for each in model.parameters() if each.requires_grad]
        noise = stream.gaussian((max(each.numel() for each in trained),), deviation)
        for parameter, total in zip(trained, sums, strict=True):
            own = noise[: parameter.numel()].view_as(parameter)
            parameter.grad = (total + own.to(total)) / units

    return patch.object(released_statistics, "write_gradients", written)


def _over_those_drawn() -> Any:
    """Gradients are divided by how many were drawn, which is secret."""
    honest = ReleasedStatistics.gradients

    def gradients(own: Any, model: nn.Module, views: Tensor, stream: NoiseStream) -> None:
        honest(own, model, views, stream)
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad *= own.expected_units / max(1, len(views))

    return patch.object(ReleasedStatistics, "gradients", gradients)


def _mean_of_those_drawn() -> Any:
    """A released statistic is divided by how many were drawn."""
    honest = ReleasedStatistics._sum

    def summed(own: Any, model: nn.Module, views: Tensor, release: Any) -> Any:
        units = property(lambda _: float(max(1, len(views))))
        with patch.object(ReleasedStatistics, "expected_units", units):
            return honest(own, model, views, release)

    return patch.object(ReleasedStatistics, "_sum", summed)


def _groups_kept_whole() -> Any:
    """Every group is in every step."""
    honest = draw_groups

    def drawn(count: int, size: int, _rate: float, stream: NoiseStream) -> Tensor:
        return honest(count, size, 1.0, stream)

    return patch.object(group, "draw_groups", drawn)


def _in_groups() -> FederationConfig:
    privacy = {"unit": "example", "noise": 2.0, "epsilon": 500.0, "mechanism": "group"}
    return small(objective={"name": "nt_xent"}, privacy=privacy)


_PLANTED: tuple[tuple[str, Callable[[], FederationConfig], Plant], ...] = (
    ("no noise", small, _gaussian(0.0)),
    ("half noise", small, _gaussian(0.5)),
    ("half noise on groups", _in_groups, _gaussian(0.5)),
    ("noise on gradients and not on the statistic", small, _gradients_alone),
    ("noise on the statistic and not on gradients", small, _statistic_alone),
    ("everybody in every step, charged at the rate", small, _everybody),
    ("every group in every step, charged at the rate", _in_groups, _groups_kept_whole),
    ("the same batch in every step", small, _same_batch),
    ("the same noise in every step", small, _same_noise),
    ("one seed for all clients and rounds", small, _same_seed),
    ("noise repeats within a release", small, _one_number),
    ("no clip factor", small, unclipped),
    ("no noise in a step without anybody", small, _empty_unnoised),
    ("no noise on biases", small, _biases_bare),
    ("one vector of noise for all layers", small, _one_for_all_layers),
    ("gradients over the number drawn", small, _over_those_drawn),
    ("a statistic over the number drawn", small, _mean_of_those_drawn),
    ("half of the steps charged", small, _half_charged),
    ("twice the noise charged", small, _wider_charged),
    ("replace-one charged as zero-out", lambda: full("replace-one"), _charged_as_absent),
)

FAULTS = tuple(Fault(name, "example-noise", config, plant) for name, config, plant in _PLANTED)
"""Each must be called broken by `example-noise`."""
