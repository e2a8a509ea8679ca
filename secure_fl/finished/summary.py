"""What a run amounts to: `summary.json`, and the embedding as a picture in two dimensions."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from secure_fl.config import FederationConfig, OptimiserConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.joining import join
from secure_fl.data.partitions import ClientData
from secure_fl.data.summary import PartitionSummary
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.run_folder.metrics import Metrics, RoundRecord
from secure_fl.federation.run_folder.secrecy import secrecy
from secure_fl.federation.run_folder.summary import (
    Cost,
    FinalPools,
    Privacy,
    SketchPrivacy,
    Summary,
)
from secure_fl.federation.whole_run.alerts import listed
from secure_fl.models.state import load_vector
from secure_fl.training.tasks import embed

_PICTURED = 800
_FIGURES = ("accuracy", "accuracy_std", "accuracy_min", "test_loss", "choices", "accuracies")

SIMULATED = "simulated in one process: all data, and all keys, are in one place"
"""What is said of every run that is no deployment."""


def unprotected(config: FederationConfig) -> list[str]:
    """What a run does not protect; shown in red and kept in its record."""
    found, plain = [], config.security.protection == "plain"
    if config.privacy.unit == "none":
        sums = "updates, choices" if plain else "sums of updates"
        found.append(
            f"no differential privacy: {sums} and metrics are released as they "
            f"are{_sketches(config)}"
        )
    if plain:
        found.append("no protection: the server reads every client's update")
    if plain and config.privacy.unit == "client":
        found.append(
            "client-level noise protects sums: without a secure sum the server sees single "
            "updates, each with one share of it"
        )
    if plain and config.noises_moments:
        found.append(
            "the noise of view moments protects their sums: without a secure sum the server sees "
            "single ones, each with one share of it"
        )
    found += [] if plain else _by_difference(config)
    if config.security.robust != "none":
        inside = ""
        if config.pools.enabled:
            inside = f", of a pool over {config.security.min_pool_clients} or more of them"
        found.append(
            f"robust averages: sums over groups of {config.security.group_size} clients are "
            f"opened{inside}, not only over all clients"
        )
    return [*found, SIMULATED]


def encoder_made(config: FederationConfig) -> str:
    """How a private run's encoder is made, and why; empty where that is as it always was."""
    if config.noises_moments:
        return (
            "encoder: view moments, two noised sums and no training, worth more than private "
            'training where both were measured; pretrain.method = "train" would train one'
        )
    return ""


def _sketches(config: FederationConfig) -> str:
    """What is said of the sketches of a run without differential privacy."""
    if not config.pools.enabled or config.pools.start != "sketch":
        return ""
    if not config.noises_sketches:
        return "; sketches too: the server reads what each client's examples look like on average"
    return (
        "; only the sketches that start the pools are noised, to ε = "
        f"{config.privacy.sketch_epsilon:g} of an example for the sketches alone"
    )


def _by_difference(config: FederationConfig) -> list[str]:
    """What stands still while clients change: sums hide it from a single opening only."""
    phases: list[OptimiserConfig] = [config.pretrain] if config.pretrain.trains else []
    phases += [config.pools] if config.pools.enabled else []
    found = []
    if any(phase.weights == "examples" for phase in phases):
        found.append(
            "averages by number of examples: where a client is missing from one round, the "
            "difference of two sums shows its number"
        )
    chosen = config.pools.enabled and config.pools.count > 1
    if chosen and config.pools.participation < 1 and config.privacy.unit != "client":
        found.append(
            "pools.participation below 1: which pool a client uses follows from the counts of "
            "several rounds"
        )
    batch = config.model.norm == "batch" or (
        config.model.norm == "auto" and config.model.encoder == "resnet18"
    )
    if phases and batch and config.privacy.unit == "none":
        found.append(
            "normalisation by the batch: where a client is missing from one round, the difference "
            "of two sums shows its means and variances, roughly"
        )
    return found


def final_summary(
    config: FederationConfig,
    records: Sequence[RoundRecord],
    data: PartitionSummary,
    sizes: Mapping[str, int],
    privacy: Privacy | None = None,
    sketches: SketchPrivacy | None = None,
) -> Summary:
    """Results, costs and warnings of a finished run; the manifest says what of it is written."""
    by_phase = {
        name: [r for r in records if r.phase == name]
        for name in dict.fromkeys(r.phase for r in records)
    }
    tested = by_phase["evaluate"][-1].metrics if "evaluate" in by_phase else Metrics()
    course = [*(record.metrics for record in by_phase.get("cluster", [])), tested]
    return Summary(
        name=config.name,
        status="finished",
        seed=config.seed,
        unprotected=tuple(unprotected(config)),
        secrecy=secrecy(config, len(data.clients)),
        clients=len(data.clients),
        examples=sum(client.examples for client in data.clients),
        label_skew=data.label_skew,
        **sizes,
        costs={name: _cost(rounds) for name, rounds in by_phase.items()},
        versions=versions(),
        alerts=listed(records),
        privacy=privacy,
        representation=by_phase["measure"][-1].metrics if "measure" in by_phase else None,
        pools=_pools(course, data) if tested.pools and tested.choices is not None else None,
        sketches=sketches,
    )


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    installed = {name: metadata.version(name) for name in ("torch", "numpy", "kornia")}
    try:
        own = metadata.version("secure-fl")
    except metadata.PackageNotFoundError:
        own = "not installed"
    return {"secure-fl": own, "python": platform.python_version(), **installed}


def picture(factory: Factory, vector: Tensor, clients: Sequence[ClientData]) -> dict[str, Any]:
    """Test examples under the first encoder and the one of `vector`, on their two principal axes.
    Simulation only.

    About 800 points in all, at least one a client.
    """
    encoder = factory.encoder()
    load_vector(encoder, vector)
    share = max(1, _PICTURED // len(clients))
    parts = [client.test.take(torch.arange(min(share, len(client.test)))) for client in clients]
    data: Dataset = join(parts, "picture")
    owners = [
        client.id for client, part in zip(clients, parts, strict=True) for _ in range(len(part))
    ]
    groups = [clients[owner].group for owner in owners]
    planes = {
        "initial": _plane(embed(factory.encoder(), data.x, factory.compute)),
        "final": _plane(embed(encoder, data.x, factory.compute)),
    }
    return {"label": data.y.tolist(), "group": groups, "client": owners, **planes}


def _plane(h: Tensor) -> list[list[float]]:
    """Unit features `[N, F]` on two principal axes, signs fixed so that equal runs draw alike."""
    unit = torch.nn.functional.normalize(h, dim=1).double()
    centred = unit - unit.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)).sign()
    points: list[list[float]] = (centred @ axes.T).mul(1e4).round().div(1e4).tolist()
    return points


def _cost(rounds: Sequence[RoundRecord]) -> Cost:
    """What one phase cost. Times are left out where a round's record has none."""
    down, up = sum(r.bytes_down for r in rounds), sum(r.bytes_up for r in rounds)
    times = _in_all([r.seconds for r in rounds]), _in_all([r.sum_seconds for r in rounds])
    return Cost(len(rounds), down, up, *times)


def _in_all(times: Sequence[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return sum(known) if len(known) == len(times) else None


def _pools(course: Sequence[Metrics], data: PartitionSummary) -> FinalPools:
    """The last evaluation, the course of the rounds before it, and each group's accuracy.

    Rounds that were read back without the experimenter's fields are gaps in the course.
    """
    final, health = course[-1], [each.pools for each in course if each.pools is not None]
    groups = {client.client: client.group for client in data.clients}
    by_group: dict[str, list[float]] = {}
    for client, accuracy in (final.accuracies or {}).items():
        if accuracy is not None and groups[int(client)] is not None:
            by_group.setdefault(str(groups[int(client)]), []).append(accuracy)
    return FinalPools(
        **vars(health[-1]),
        accuracy=final.accuracy,
        accuracy_std=final.accuracy_std,
        accuracy_min=final.accuracy_min,
        balanced_accuracy=final.balanced_accuracy,
        test_loss=final.test_loss,
        majority=final.majority,
        choices=final.choices or {},
        accuracies=final.accuracies or {},
        accuracy_per_round=tuple(metrics.accuracy for metrics in course),
        occupancy_per_round=tuple(pools.counts for pools in health),
        alerts=tuple(pools.alert for pools in health if pools.alert),
        accuracy_by_group={
            group: sum(values) / len(values) for group, values in sorted(by_group.items())
        },
    )
