"""Does an example change what others contribute? Dirac canaries cannot see that: they measure what
a canary adds by itself, and under a coupled loss the leak is in everybody else's gradient.

A hub is an example that all others meet: one whose embedding is what theirs have in common, so that
it takes a share of every softmax. A step of the run's own path is replayed with and without it,
noise off and coins fixed. What the sum changes by, less what the hub contributes when it is alone,
is what it did to the others; it must be nothing but rounding, of everybody together and of every
other unit alone beside the hub. As a score it is also projected on the change that the objective,
taken over the whole batch, would have made to the others' gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.own_step import ORDINARY, OwnStep, World, newcomers
from secure_fl.audit.own_training import OwnTraining, examples_of, nothing_private, private_phases
from secure_fl.audit.subject import Subject
from secure_fl.data.views import two_views
from secure_fl.engines.embedded import new_noise
from secure_fl.errors import PrivacyError, SecureFLError
from secure_fl.models.build import seeded
from secure_fl.models.state import to_vector
from secure_fl.objectives.objective import TwoViews
from secure_fl.privacy.adjacency import Adjacency

_SIZES = {Depth.MINUTES: (32, 3, 1), Depth.HOUR: (96, 24, 4), Depth.NIGHT: (192, 96, 10)}
"""Examples, others that are held against the hub one by one, and draws of all coins."""
_SECONDS = {Depth.MINUTES: 30.0, Depth.HOUR: 400.0, Depth.NIGHT: 5000.0}
"""After which no further hub is tried; some are tried in any case."""
_ALWAYS = 4
_UNCHANGED = 1e-3
"""Of what an example may add: float32 sums in another order differ by 1e-5 of it."""


@dataclass(frozen=True)
class Hubs:
    """Hub canaries on the run's own path.

    **Guarantee**: `broken` names an example that changes what others contribute; no chance decides.
    **Assumes**: rounding below 10⁻³ of the bound. **Not covered**: an example's effect by what
    was released before, which is post-processing; a model after training.
    """

    name: str = "hubs"
    tried: str = "whether an example changes what others contribute to a released sum"

    def refused(self, subject: Subject) -> str:
        return nothing_private(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """About 3 seconds a phase at the quick depth, for a small encoder."""
        seconds = {Depth.MINUTES: 3.0, Depth.HOUR: 100.0, Depth.NIGHT: 1500.0}[depth]
        return seconds * len(private_phases(subject.config))

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        examples, beside, draws = _SIZES[depth]
        found, phases, noise = list[_Coupled](), private_phases(subject.config), new_noise()
        began = monotonic()
        try:
            for number, phase in enumerate(phases):
                ends = began + _SECONDS[depth] * (number + 1) / len(phases)
                own = OwnTraining.of(subject, phase, noise)
                x, y = examples_of(subject, own, examples)
                for draw in range(draws):
                    step = OwnStep.of(own, seed + draw)
                    found += _try(step, step.world(x, y), beside, seed + draw, ends)
                progress((number + 1) / len(phases))
        except PrivacyError as refusal:
            return self._outcome(f"the run's own guard refuses: {refusal}", "", ())
        worst = max(found, key=lambda each: each.change)
        said = f"{worst.phase}: an example ({worst.kind}) changes what {worst.others} contribute"
        wrong = f"{said} by {worst.change:.3g} of what one may add"
        held = f"in {len(found)} meetings others contributed the same to within {worst.change:.1e}"
        return self._outcome(wrong if worst.change > _UNCHANGED else "", held, _figures(found))

    def _outcome(self, wrong: str, held: str, figures: tuple[Figure, ...]) -> Outcome:
        verdict = "broken" if wrong else "held"
        return Outcome(
            self.name,
            self.tried,
            "whoever sees every noised sum",
            "example",
            verdict,  # type: ignore[arg-type]
            wrong or held,
            figures=figures,
        )


@dataclass(frozen=True)
class _Coupled:
    """What a hub did to the others, over what one example may add to a sum.

    Attributes:
        along: of it, what lies along the change that the whole batch's objective would make.
        deviations: the same in deviations of the noise of a step.
    """

    phase: str
    kind: str
    others: str
    change: float
    along: float = 0.0
    deviations: float = 0.0


def _try(step: OwnStep, world: World, beside: int, seed: int, ends: float) -> Iterator[_Coupled]:
    phase, claims = step.own.phase, step.own.mechanism.sensitivity(Adjacency.ZERO_OUT)
    rest = world.only(*world.units[1:])
    without, noise = step.sums(rest), step.own.mechanism.noise_multiplier
    single = {unit: step.sums(world.only(unit)) for unit in world.units[1 : 1 + beside]}
    made = newcomers(step, world, torch.Generator().manual_seed(seed))
    for number, kind in enumerate(ORDINARY):
        if number >= _ALWAYS and monotonic() > ends:
            break
        met = world.with_first(made[kind])
        own = step.sums(met.only(0))
        changes = _changes(step.sums(met), without, own, claims)
        predicted = _predicted(step, met)
        gradients = _gradients_of(changes, predicted)
        yield _Coupled(phase, kind, "all others", _most(changes), gradients, gradients / noise)
        for unit, alone in single.items():
            changes = _changes(step.sums(met.only(0, unit)), alone, own, claims)
            yield _Coupled(phase, kind, "others", _most(changes))


def _changes(
    both: list[Tensor], others: list[Tensor], alone: list[Tensor], claims: list[float]
) -> list[Tensor]:
    """Of each sum, what is in it of both together and of neither, over what one may add."""
    parts = zip(both, others, alone, claims, strict=True)
    return [(a.double() - b.double() - c.double()) / claim for a, b, c, claim in parts]


def _most(changes: list[Tensor]) -> float:
    found = max(float(change.norm()) for change in changes)
    return found if found == found else float("inf")


def _gradients_of(changes: list[Tensor], predicted: Tensor | None) -> float:
    """How far the gradients' sum moved along a direction."""
    if predicted is None:
        return 0.0
    length = float(predicted.norm())
    fitting = [change for change in changes if change.numel() == predicted.numel()]
    return abs(float(fitting[-1] @ predicted)) / length if fitting and length > 0 else 0.0


def _predicted(step: OwnStep, met: World) -> Tensor | None:
    """The sum of the others' gradients with the hub in the batch less the same without it, of the
    objective as training without privacy has it; None where that has no two views.
    """
    path = step.own.path
    if path.supervised or not path.augments or step.members > 1:
        return None
    first, second = two_views(path.factory.augment, met.x, step.seed)
    try:
        with_hub = _of_others(step, TwoViews(first, second), hub=True)
        without = _of_others(step, TwoViews(first[1:], second[1:]), hub=False)
    except (SecureFLError, RuntimeError):
        return None
    found = with_hub - without
    return found if len(found) == len(to_vector(step.model)) else None


def _of_others(step: OwnStep, views: TwoViews, *, hub: bool) -> Tensor:
    """Gradient by the weights of the batch's loss times its examples, through the outputs of all
    rows but the hub's, which is the first example if it is there.
    """
    pieces, objective, count = list[tuple[Tensor, Tensor]](), step.own.path.objective, len(views[0])

    def model(rows: Tensor) -> tuple[Tensor, Tensor]:
        h, z = step.model(rows)
        held = h.detach().requires_grad_(), z.detach().requires_grad_()
        pieces.extend([(h, held[0]), (z, held[1])])
        return held

    with torch.enable_grad(), seeded(step.seed):
        terms = objective.terms(views, model)
        loss = torch.stack([objective.weights[name] * term for name, term in terms.items()]).sum()
        leaves = [held for _, held in pieces]
        by_output = torch.autograd.grad(loss, leaves, materialize_grads=True)
        seeds = [(count * part).unflatten(0, (-1, count)) for part in by_output]
        for part in seeds:
            part[:, : int(hub)] = 0
        weights = [p for p in step.model.parameters() if p.requires_grad]
        outputs, starts = [h for h, _ in pieces], [part.flatten(0, 1) for part in seeds]
        found = torch.autograd.grad(outputs, weights, starts, allow_unused=True)
    return torch.cat([part.flatten() for part in found if part is not None]).double()


def _figures(found: list[_Coupled]) -> tuple[Figure, ...]:
    figures = list[Figure]()
    for phase in dict.fromkeys(each.phase for each in found):
        here = [each for each in found if each.phase == phase]
        most, along = max(each.change for each in here), max(each.along for each in here)
        name = f"{phase}: change of what others contribute, over what one example may add"
        figures.append(Figure(name, most, None, None, None, _UNCHANGED))
        name = f"{phase}: of it, along what the loss of the whole batch would do"
        figures.append(Figure(name, along, None, None, None, _UNCHANGED))
        name = f"{phase}: the same in a step, in deviations of the noise"
        figures.append(Figure(name, max(each.deviations for each in here)))
    return tuple(figures)


HUBS = Hubs()
"""As the catalogue names it."""
