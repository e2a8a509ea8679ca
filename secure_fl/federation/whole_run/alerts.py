"""What the experimenter is told of training that diverges or learns nothing: read off the records
of a simulation, round by round.

Where the experimenter's fields are left out of the record nothing of this is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite, sqrt
from statistics import fmean

from secure_fl.config import FederationConfig
from secure_fl.config.advice import Lower, Option, Raise, Setting, advise
from secure_fl.data.dataset import UNLABELLED
from secure_fl.data.partitions import ClientData
from secure_fl.federation.run_folder.metrics import Metrics, RoundRecord
from secure_fl.federation.run_folder.summary import Alerted
from secure_fl.training.fit import EXPLODED, has_exploded

_ERRORS = 2.0
"""Standard errors, over clients, by which pools must be better than the most frequent label."""
_CUT = 1e-3
"""Share of values beyond the clamp from which on it is worth a word."""
_NAMED = 5
"""Clients that one alert names; it counts the others."""


def majority_accuracy(client: ClientData) -> float | None:
    """Accuracy on the client's labelled test examples of always giving its own most frequent
    training label; None without labels in either.
    """
    trained, tested = (part.y[part.y != UNLABELLED] for part in (client.train, client.test))
    if len(trained) == 0 or len(tested) == 0:
        return None
    return float((tested == trained.bincount().argmax()).double().mean())


def majorities(clients: Sequence[ClientData]) -> dict[str, float]:
    """The majority accuracy of each client that has one, by its number."""
    found = {str(client.id): majority_accuracy(client) for client in clients}
    return {client: accuracy for client, accuracy in found.items() if accuracy is not None}


def watched(
    record: RoundRecord,
    earlier: Sequence[RoundRecord],
    config: FederationConfig,
    majority: Mapping[str, float],
) -> RoundRecord:
    """The record of a round with what its accuracies are to be compared with, and with its alerts,
    if there are any.

    Args:
        earlier: the records before it; a gap in one, where the experimenter's fields were left out,
            says nothing.
        majority: of `majorities`; their mean is over the clients that the round tested.
    """
    known = [
        majority[client]
        for client, accuracy in (record.metrics.accuracies or {}).items()
        if accuracy is not None and client in majority
    ]
    metrics = record.metrics | Metrics(majority=fmean(known) if known else None)
    losses = (each.metrics.loss for each in earlier if each.phase == record.phase)
    first = next((loss for loss in losses if loss is not None), None)
    alerts = tuple(_alerts(record.phase, metrics, first, config))
    return replace(record, metrics=metrics | Metrics(alerts=alerts or None))


def alerts_of(record: RoundRecord) -> list[str]:
    """All alerts of a round, those of the pools among them."""
    pools, more = record.metrics.pools, record.metrics.alerts or ()
    return [*([pools.alert] if pools is not None and pools.alert else []), *more]


def kind_of(alert: str) -> str:
    """What an alert is about: the words before its colon. Two of one kind may differ in clients
    and figures.
    """
    return alert.partition(":")[0]


def listed(records: Sequence[RoundRecord]) -> tuple[Alerted, ...]:
    """Each kind of alert of each phase once, with the round in which it came up first."""
    found: dict[tuple[str, str], Alerted] = {}
    for record in records:
        for alert in alerts_of(record):
            first = Alerted(record.phase, record.round, alert)
            found.setdefault((record.phase, kind_of(alert)), first)
    return tuple(found.values())


def _alerts(
    phase: str, metrics: Metrics, first: float | None, config: FederationConfig
) -> Iterator[str]:
    table = "pretrain" if phase == "pretrain" else "pools"
    steadier = advise(
        config,
        Lower(f"{table}.lr"),
        Setting("runtime.precision", "float32"),
        "look for extreme values in the data",
    )
    if metrics.exploded is not None:
        yield (
            f"exploding loss within a round: {_places(metrics.exploded)}, over {EXPLODED:g} "
            f"times the size of its first value; {steadier}"
        )
    if metrics.cut is not None and metrics.cut.share >= _CUT:
        count, share = metrics.cut.clients, metrics.cut.share
        remedy = advise(
            config,
            Raise("security.clamp"),
            Raise("security.buffer_clamp"),
            Lower(f"{table}.lr"),
            "scale what your encoder is given",
        )
        yield (
            f"updates were cut: at {count} client{'' if count == 1 else 's'}, up to {share:.1%} of "
            f"a kind of values lay beyond the clamp; {remedy}"
        )
    loss = metrics.loss
    if loss is not None and not isfinite(loss):
        yield f"loss that is no number: the mean over clients is not finite; {steadier}"
    elif loss is not None and first is not None and has_exploded(loss, first):
        yield (
            f"exploding loss: the mean over clients is over {EXPLODED:g} times the size that it "
            f"had in the phase's first round; {steadier}"
        )
    if phase == "evaluate":
        yield from _no_better(metrics, config)
    if phase == "measure":
        yield from _worse_than_random(metrics, config)


def _places(exploded: Mapping[str, int]) -> str:
    """`client 3 at step 5, server at step 2`; step 0 stands for an update that was not finite, and
    was left out.
    """
    named = []
    for who, step in exploded.items():
        place = f"at step {step}" if step else "until nothing was left to send"
        named.append(f"{who if who == 'server' else f'client {who}'} {place}")
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


def _no_better(metrics: Metrics, config: FederationConfig) -> Iterator[str]:
    """Pools that know no more than which label is the most frequent."""
    accuracy, majority = metrics.accuracy, metrics.majority
    if accuracy is None or majority is None:
        return
    clients = max(1, sum(each is not None for each in (metrics.accuracies or {}).values()))
    if accuracy > majority + _ERRORS * (metrics.accuracy_std or 0.0) / sqrt(clients):
        return
    remedy = advise(
        config,
        *([Setting("pretrain.mode", "federated")] if config.pretrain.mode == "none" else []),
        *([Setting("pools.encoder", "finetune")] if config.pools.encoder == "frozen" else []),
        *([Raise("data.labelled_clients", limit=1)] if config.data.labelled_clients < 1 else []),
        *([Raise("privacy.epsilon")] if config.privacy.unit != "none" else []),
        Raise("pools.rounds"),
        Raise("pools.local_epochs"),
        f"try a pools.lr other than {config.pools.lr:g}",
    )
    said = f"accuracy {accuracy:.3f}, and {majority:.3f} by always giving a client's most frequent"
    yield f"no better than the majority class: {said} label; {remedy}"


def _worse_than_random(metrics: Metrics, config: FederationConfig) -> Iterator[str]:
    """Pre-training that left neighbours of one label further apart than a random encoder does."""
    initial, pretrained = metrics.initial or {}, metrics.pretrained or {}
    lower = [
        (said, initial[name], pretrained[name])
        for name, said in (("knn", "kNN"), ("linear_probe", "the linear probe"))
        if name in initial and name in pretrained and pretrained[name] < initial[name]
    ]
    if not lower:
        return
    what, before, after = lower[0]
    options: list[Option] = ["load another run's encoder"]
    if config.pretrain.mode != "load":
        views = "choose [views] that keep what tells the labels apart"
        trained: list[Option] = [Raise("pretrain.rounds"), Lower("pretrain.lr")]
        options = [*([] if config.pretrain.sums_moments else trained), views]
    if config.privacy.unit != "none" and config.pretrain.mode == "federated":
        options.insert(0, Raise("privacy.epsilon"))
    remedy = advise(config, *options, Setting("pretrain.mode", "none"))
    yield (
        f"pre-training lowered {what}: accuracy {before:.3f} by the random encoder, {after:.3f} by "
        f"the pre-trained one; {remedy}"
    )
