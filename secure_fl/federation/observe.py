"""What an experimenter reads off a simulation: no part of the protocol, and in no deployment. What
follows from opened sums alone is a step's `monitor` instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from statistics import fmean, pstdev

from torch import nn

from secure_fl.data.dataset import Dataset
from secure_fl.federation.asks import PoolScore
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.run_folder.metrics import Cut, Metrics
from secure_fl.federation.state import State
from secure_fl.models.state import load_vector
from secure_fl.pools.monitor import PoolHealth, adjusted_rand
from secure_fl.training.representation import MEASURED_ON, measure_representation


@dataclass(frozen=True)
class Seen:
    """What is read off one client that answers.

    Attributes:
        terms: mean of each loss term over its steps; none where training is private.
        exploded: step at which its loss had left its scale, if it did; 0 where it ended in an
            update that is not finite, and zeros are sent.
        cut: share of its update's values that the clamp cut.
        score: its choice, and how it fares with it.
    """

    terms: Mapping[str, float] = field(default_factory=dict)
    exploded: int | None = None
    cut: float = 0.0
    score: PoolScore | None = None


def of_training(seen: Mapping[int, Seen], weights: Mapping[str, float]) -> Metrics:
    """Losses of clients that trained: their weighted sum and each term, as means over the clients
    that report them.
    """
    reported = [each.terms for each in seen.values()]
    names = dict.fromkeys(name for terms in reported for name in terms)
    means = {name: fmean(terms[name] for terms in reported if name in terms) for name in names}
    loss = sum(weights[name] * value for name, value in means.items()) if means else None
    return Metrics(loss=loss, terms=means)


def of_steps(seen: Mapping[int, Seen]) -> Metrics:
    """What went wrong in training: whose losses left their scale, at how many clients something of
    the update was cut, and the largest share of one client's values that was.
    """
    steps = {str(who): each.exploded for who, each in seen.items() if each.exploded is not None}
    cut = [each.cut for each in seen.values() if each.cut > 0]
    return Metrics(exploded=steps or None, cut=Cut(len(cut), max(cut)) if cut else None)


def of_choices(
    health: PoolHealth, seen: Mapping[int, Seen], groups: Sequence[int | None]
) -> Metrics:
    """Who chose what, how well it serves them, and how far the choices agree with known groups.

    Args:
        health: of the pools, from the opened counts.
        groups: of every client, by its number.
    """
    scores = {client: each.score for client, each in seen.items() if each.score is not None}
    choices = {client: score.choice for client, score in scores.items()}
    accuracies = {client: score.test_accuracy for client, score in scores.items()}
    known = [accuracy for accuracy in accuracies.values() if accuracy is not None]
    balanced = [each.test_balanced for each in scores.values() if each.test_balanced is not None]
    losses = [each.test_loss for each in scores.values() if isfinite(each.test_loss)]
    ari = adjusted_rand(list(choices.values()), [groups[client] for client in choices])
    return Metrics(
        accuracy=fmean(known) if known else None,
        accuracy_std=pstdev(known) if known else None,
        accuracy_min=min(known, default=None),
        balanced_accuracy=fmean(balanced) if balanced else None,
        test_loss=fmean(losses) if losses else None,
        pools=replace(health, ari=ari),
        choices={str(client): choice for client, choice in choices.items()},
        accuracies={str(client): accuracy for client, accuracy in accuracies.items()},
    )


def of_representation(factory: Factory, state: State, train: Dataset, test: Dataset) -> Metrics:
    """The representation's metrics, before and after pre-training, on all clients' data."""

    def measured(encoder: nn.Module) -> dict[str, float]:
        return measure_representation(
            encoder,
            train,
            test,
            factory.facts.config.evaluate,
            augment=factory.augment,
            compute=factory.compute,
            seed=factory.facts.seed("measure"),
        )

    encoder = factory.encoder()
    initial = measured(encoder)
    load_vector(encoder, state.tensors["encoder"])
    return Metrics(initial=initial, pretrained=measured(encoder), measured_on=MEASURED_ON)
