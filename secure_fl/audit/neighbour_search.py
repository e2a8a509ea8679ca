"""Sensitivity as a command, on the user's own path: how far can one example move what is released?

    report = path_sensitivity("run.toml")            # or a FederationConfig, or a run's folder
    report = path_sensitivity(config, data=mine, encoder=encoder, augment=augment)
    print(report.ratio, report.worst)                # at most 1 where all is as claimed
    report.require()

For every phase that trains privately a step is taken with noise off and coins fixed, on the user's
examples, through the user's augmentation, encoder and objective and the run's own mechanism, on
neighbouring data sets. The example by which they differ begins as a hub, a duplicate, noise, zeros,
NaN, something huge, and is then optimised: moved at random, and kept where it moves the released
sums more. Random neighbours alone find almost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from secure_fl.arguments import as_config
from secure_fl.audit.finding import Finding, SensitivityReport
from secure_fl.audit.own_step import OwnStep, World, forgiving, newcomers
from secure_fl.audit.own_training import OwnTraining, examples_of, nothing_private, private_phases
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.data.views import Augmentation
from secure_fl.engines.embedded import new_noise
from secure_fl.errors import AuditError
from secure_fl.privacy.adjacency import Adjacency

_STARTS = 3
"""Newcomers that are optimised: those that move the sums most."""


def path_sensitivity(
    subject: Subject | FederationConfig | Mapping[str, Any] | Path | str,
    *,
    data: Any = None,
    encoder: nn.Module | Any = None,
    augment: Augmentation | None = None,
    examples: int = 16,
    trials: int = 1,
    climbs: int = 40,
    seconds: float = inf,
    seed: int = 0,
) -> SensitivityReport:
    """Compare what a run's own training releases on neighbouring data sets with what it claims.

    **Guarantee**: a failed report holds neighbours on which the claim is false. **Assumes**: an
    example that is missing is not drawn, or, in a group, is NaN. **Not covered**: neighbours that
    nobody thought of and no search found; a model after training, where fresh weights hide what
    trained ones show; sampling and noise.

    Args:
        subject: settings, a run's folder, or a `Subject`.
        data, encoder, augment: as of `secure_fl.Federation`.
        examples: of the first client, in the larger data set.
        trials: how often to draw coins and neighbours afresh.
        climbs: steps of the search from each of the three best neighbours.
        seconds: after which nothing more is optimised.
        seed: of neighbours and coins.

    Raises:
        AuditError: nothing is trained privately at example level.
        PrivacyError: the run's own guards refuse the path.
    """
    audited = _subject(subject, data=data, encoder=encoder, augment=augment)
    size = _Size(examples, trials, climbs, monotonic() + seconds)
    return SensitivityReport(audited.config.name, tuple(_all(audited, size, seed)))


class _Size(NamedTuple):
    """How much is tried, and until when."""

    examples: int
    trials: int
    climbs: int
    ends: float


def _all(audited: Subject, size: _Size, seed: int) -> Iterator[Finding]:
    """Of every phase."""
    if problem := nothing_private(audited):
        remedy = 'set privacy.unit = "example"'
        raise AuditError(problem, "subject", audited.config.privacy.unit, remedy)
    noise = new_noise()
    for phase in private_phases(audited.config):
        own = OwnTraining.of(audited, phase, noise)
        for trial in range(size.trials):
            step, generator = OwnStep.of(own, seed + trial), torch.Generator()
            search = _Search(step, generator.manual_seed(seed + trial), size.climbs, size.ends)
            x, y = examples_of(audited, own, size.examples)
            for name, world in _worlds(step, x, y):
                yield from search.findings(world, name)


def _subject(subject: object, **own: Any) -> Subject:
    if isinstance(subject, Subject):
        return subject
    if isinstance(subject, Path | str) and Path(subject).is_dir():
        return Subject.of(Path(subject), **own)
    config = as_config(subject, own_encoder=own.get("encoder") is not None)
    return Subject(config, None, **own)


def _worlds(step: OwnStep, x: Tensor, y: Tensor) -> Iterator[tuple[str, World]]:
    """The user's examples, and one of them many times over."""
    yield "own", step.world(x, y)
    alike = torch.ones_like(y)
    yield "alike", step.world(x[:1].expand_as(x).clone(), y[:1] * alike)


class _Tried(NamedTuple):
    """An example in the first place, and what is then released."""

    kind: str
    x: Tensor
    label: Tensor
    sums: list[Tensor]


@dataclass(frozen=True)
class _Search:
    """Over newcomers in the first place of a world."""

    step: OwnStep
    generator: Generator
    climbs: int
    ends: float

    def findings(self, world: World, name: str) -> Iterator[Finding]:
        """Of all newcomers, and of what the best become that are climbed away from nobody and, for
        replace-one, from each other.
        """
        without = self.step.sums(self.step.without_first(world))
        tried = list(self._newcomers(world))
        best = self._farthest(tried, without)[:_STARTS]
        tried += [self._climbed(world, each, without) for each in best]
        for each in tried:
            yield from self._found("zero-out", f"{name}, {each.kind}", each.sums, without)
        if Adjacency.REPLACE_ONE not in self.step.own.mechanism.adjacencies:
            return
        first = self._farthest(tried, without)[0]
        apart = self._farthest(tried, first.sums)[:_STARTS]
        tried += [self._climbed(world, each, first.sums) for each in apart]
        for old, new in combinations(tried, 2):
            kinds = f"{name}, {old.kind} by {new.kind}"
            yield from self._found("replace-one", kinds, old.sums, new.sums)

    def _newcomers(self, world: World) -> Iterator[_Tried]:
        """Each kind, with the first example's label and, where labels are trained, the next."""
        classes = max(2, self.step.own.path.factory.facts.classes)
        labels = [world.y[0]]
        labels += [(world.y[0] + 1) % classes] if self.step.own.path.supervised else []
        for kind, x in newcomers(self.step, world, self.generator).items():
            for number, label in enumerate(labels):
                sums = forgiving(self.step.sums, world.with_first(x, label))
                if sums is not None:
                    yield _Tried(kind + " mislabelled" * number, x, label, sums)

    def _farthest(self, tried: list[_Tried], one: list[Tensor]) -> list[_Tried]:
        """Those of ordinary values, first what is farthest from these sums."""
        ordinary = [each for each in tried if each.x.isfinite().all() and each.kind != "huge"]
        return sorted(ordinary, key=lambda each: self._ratio(each.sums, one), reverse=True)

    def _climbed(self, world: World, start: _Tried, away: list[Tensor]) -> _Tried:
        """The best example on a random way away from these sums."""
        x, sums, best = start.x, start.sums, self._ratio(start.sums, away)
        size = float(world.x.std()) + 1e-6
        for _ in range(self.climbs):
            if monotonic() > self.ends:
                break
            moved = x + size * torch.randn(x.shape, generator=self.generator)
            given = forgiving(self.step.sums, world.with_first(moved, start.label))
            ratio = 0.0 if given is None else self._ratio(given, away)
            if given is not None and ratio > best:
                x, sums, best, size = moved, given, ratio, 1.5 * size
            else:
                size *= 0.9
        kind = start.kind.removeprefix("optimised ")
        return _Tried(f"optimised {kind}", x, start.label, sums)

    def _ratio(self, one: list[Tensor], other: list[Tensor]) -> float:
        return max(found.ratio for found in self._found("zero-out", "", one, other))

    def _found(
        self, edit: str, newcomer: str, one: list[Tensor], other: list[Tensor]
    ) -> Iterator[Finding]:
        phase, mechanism = self.step.own.phase, self.step.own.mechanism
        claims = mechanism.sensitivity(Adjacency(edit))
        for number, (a, b, claim) in enumerate(zip(one, other, claims, strict=True)):
            change = float((a.double() - b.double()).norm())
            yield Finding(edit, newcomer, f"{phase}: released sum {number}", change, claim)
