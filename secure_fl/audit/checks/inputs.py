"""Can whoever has a trained model tell which examples it was trained on? Canary inputs, end to end.

Some inputs that are like no example (a client's own, their values shuffled; labels drawn anew) are
put in by sealed coins or left out, and the run's own local training takes some steps: its views,
model, sampling, clipping, noise and optimiser. Each is scored by what training did to it: how much
its loss fell, or how much more alike its views' embeddings became.

These bounds are weak by nature: noise covers all weights and a score reads one number. They are
there for what nothing else sees: a path beside the sums that are noised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.audit.bounds import guessed, one_run_bound, one_run_f_bound
from secure_fl.audit.bounds.result import Bound, Vector
from secure_fl.audit.check import Depth
from secure_fl.audit.game import Coins, SealedAssignment
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.own_step import OwnStep
from secure_fl.audit.own_training import (
    OwnTraining,
    examples_of,
    nothing_private,
    private_phases,
    seconds_of_rounds,
)
from secure_fl.audit.subject import Subject
from secure_fl.data.views import two_views
from secure_fl.engines.embedded import new_noise
from secure_fl.errors import PrivacyError
from secure_fl.models.build import seeded
from secure_fl.privacy.accounting import Charge, epsilon_of
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.engine import PrivateTraining
from secure_fl.privacy.mechanisms.per_example import PerExample

_SIZES = {Depth.MINUTES: (120, 24), Depth.HOUR: (500, 250), Depth.NIGHT: (1000, 2000)}
"""Canaries and steps."""
_SECONDS = {Depth.MINUTES: 40.0, Depth.HOUR: 400.0, Depth.NIGHT: 4000.0}
"""That training of a phase may take."""
_TIMED = 8
"""Examples of a step that is timed."""
_FALSE, _BOUNDS, _LOOKS = 1e-3, 2, 4
"""False alarms in all, bounds in a phase, and pairs of views by which an embedding is judged."""


@dataclass(frozen=True)
class Inputs:
    """Canary inputs through the run's own local training.

    **Guarantee**: an honest run is called broken with probability at most 10⁻³ in all.
    **Assumes**: a missing example, which is NaN, contributes nothing. **Not covered**: much; a low
    bound says nothing here.
    """

    name: str = "inputs"
    tried: str = "whether a trained model tells which inputs it was trained on"

    def refused(self, subject: Subject) -> str:
        return nothing_private(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """About 3 seconds a phase at the quick depth, for a small encoder."""
        most = {Depth.MINUTES: 3.0, Depth.HOUR: 80.0, Depth.NIGHT: 900.0}[depth]
        return seconds_of_rounds(subject.config, 0.45, most)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        phases, noise = private_phases(subject.config), new_noise()
        bounds, figures, wrong = list[Bound](), list[Figure](), list[str]()
        for number, phase in enumerate(phases):
            own = OwnTraining.of(subject, phase, noise)
            canaries, steps = _SIZES[depth]
            steps = min(steps, own.charged.steps * own.rounds, _affordable(subject, own, depth))
            adjacency, delta = Adjacency(subject.config.privacy.adjacency), own.delta
            claim = epsilon_of([Charge(own.charged.with_count(steps), adjacency)], delta)
            try:
                scores, coins = _play(subject, own, canaries, steps, seed)
            except PrivacyError as refusal:
                wrong.append(f"{phase}: the run's own guard refuses: {refusal}")
                continue
            made = _bounds(scores, coins, delta, 1 - _FALSE / (_BOUNDS * len(phases)))
            bounds += [_of_phase(phase, bound, claim) for bound in made]
            figures.append(_advantage(phase, scores, coins))
            wrong += [
                f"{phase}: ε ≥ {bound.epsilon:.3g} by {bound.method}, claimed {claim:.3g}"
                for bound in made
                if bound.refutes(claim)
            ]
            progress((number + 1) / len(phases))
        held = "nobody could tell by the trained model which inputs were in, as far as this sees"
        return Outcome(
            self.name,
            self.tried,
            "whoever has the trained model",
            "example",
            "broken" if wrong else "held",
            "; ".join(wrong) or held,
            _FALSE,
            tuple(bounds),
            tuple(figures),
        )


def _affordable(subject: Subject, own: OwnTraining, depth: Depth) -> int:
    """Steps that the time is enough for, by what one of few examples takes."""
    step = OwnStep.of(own, 0)
    world = step.world(*examples_of(subject, own, _TIMED * own.path.members))
    step.sums(world)  # what is imported when it is first needed is no part of a step
    began = monotonic()
    step.sums(world)
    units = own.mechanism.expected_units + 1
    return max(1, int(_SECONDS[depth] / (monotonic() - began) * len(world.units) / units))


def _play(
    subject: Subject, own: OwnTraining, canaries: int, steps: int, seed: int
) -> tuple[Vector, Coins]:
    x, y = examples_of(subject, own, 1 << 20)
    strange, labels = _strange(own, x, y, canaries, seed)
    assignment = SealedAssignment.sealed(canaries)
    there = torch.from_numpy(assignment.there)
    shape = (-1, *[1] * (x.ndim - 1))
    missing = torch.where(there.view(shape), strange, torch.nan)
    mechanism = replace(own.mechanism, examples=len(x) + canaries)
    if isinstance(mechanism, PerExample):
        mechanism = replace(mechanism, clip=copy.copy(mechanism.clip))
    model = own.path.model()
    before = _known(own, model, strange, labels, seed)
    made: Any = mechanism
    training: PrivateTraining[Any] = PrivateTraining(made, replace(own.training.spec, steps=steps))
    views_of = own.path.views_of(torch.cat([x, missing]), torch.cat([y, labels]))
    training.run(model, views_of, own.stream())
    after = _known(own, model, strange, labels, seed)
    scores = np.nan_to_num((after - before).numpy().astype(np.float64))
    return scores, assignment.open(scores)


def _strange(
    own: OwnTraining, x: Tensor, y: Tensor, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Inputs whose values are those of examples, each in an order of its own; labels at random."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(x), (count,), generator=generator)
    flat = x[chosen].flatten(1)
    order = torch.rand(flat.shape, generator=generator).argsort(1)
    classes = max(1, own.path.factory.facts.classes)
    labels = torch.randint(classes, (count,), generator=generator).to(y.dtype)
    return flat.gather(1, order).view(count, *x.shape[1:]), labels


@torch.no_grad()
def _known(own: OwnTraining, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """How well a model knows each input: minus its loss, or how alike its views' embeddings are."""
    modes = {layer: layer.training for layer in model.modules()}
    model.eval()
    device = own.path.factory.compute.device
    if own.path.supervised:
        losses = functional.cross_entropy(model(x.to(device)), y.to(device), reduction="none")
        found = -losses.cpu()
    else:
        alike = list[Tensor]()
        for look in range(_LOOKS):
            with seeded(seed):
                views = two_views(own.path.factory.augment, x, seed + look)
            first, second = (model(view.to(device))[1].cpu() for view in views)
            alike.append(functional.cosine_similarity(first, second))
        found = torch.stack(alike).mean(0)
    for layer, training in modes.items():
        layer.training = training
    return found


def _bounds(scores: Vector, coins: Coins, delta: float, confidence: float) -> list[Bound]:
    """Those that need no law of the scores."""
    outcomes = guessed(scores, coins)
    approximate = one_run_f_bound(outcomes, delta, confidence, "approximate")
    return [one_run_bound(outcomes, delta, confidence), approximate]


def _of_phase(phase: str, bound: Bound, claim: float) -> Bound:
    details = {**bound.details, "claimed": claim}
    return replace(bound, method=f"{bound.method}, {phase}", details=details)


def _advantage(phase: str, scores: Vector, coins: Coins) -> Figure:
    """How often an input that was in scores above one that was not, with its interval."""
    inside, outside = scores[coins], scores[~coins]
    above = inside[:, None] - outside[None]
    area = float((above > 0).mean() + 0.5 * (above == 0).mean())
    error = 1.96 * ((len(scores) + 1) / (12 * len(inside) * len(outside))) ** 0.5
    name = f"{phase}: chance that an input that was in scores above one that was not"
    return Figure(name, area, max(0.0, area - error), min(1.0, area + error), chance=0.5)


INPUTS = Inputs()
"""As the catalogue names it."""
