"""What one client will release over a whole run at example level, and the noise that keeps it
within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

from secure_fl.config import FederationConfig, OptimiserConfig
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.private_paths import TrainingPath
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.calibration import noise_of_run
from secure_fl.privacy.choice import PrivateChoice
from secure_fl.privacy.events import Event, GaussianEvent
from secure_fl.privacy.ledger import Charges


@dataclass(frozen=True)
class Steps:
    """Private steps of one phase.

    Attributes:
        examples: that are trained on.
        rate: probability with which an example is in a step.
        per_round: steps in one round.
        rounds: rounds in which the client may be called.
        one: what the phase's mechanism says that one step costs, at a noise multiplier of 1.
    """

    examples: int
    rate: float
    per_round: int
    rounds: int
    one: GaussianEvent

    @classmethod
    def of(cls, path: TrainingPath, config: OptimiserConfig, examples: int, rounds: int) -> Steps:
        """As many steps as ordinary training would take over `examples`, sampled instead of
        shuffled. All of them show that number: it is public.
        """
        rate = min(1.0, config.batch_size / examples)
        steps = config.local_epochs * ceil(examples / config.batch_size)
        return cls(examples, rate, steps, rounds, path.mechanism(examples, rate, 1.0).event(1))

    def planned(self, noise: float, rounds: int = 1) -> GaussianEvent:
        """What so many rounds will cost; they are charged by the mechanism that takes them."""
        return replace(self.one, noise_multiplier=noise).times(self.per_round * rounds)


@dataclass(frozen=True)
class ExamplePlan:
    """One client's releases over the run.

    Attributes:
        noise: multiplier of every private training step; where nothing trains, of the sum of view
            moments.
        pretrain, pools: the steps of either phase; None where the phase does not train on the
            client's examples.
        fixed: releases whose noise the configuration sets: sums of view moments, sketches and
            choices.
    """

    noise: float
    pretrain: Steps | None
    pools: Steps | None
    fixed: tuple[Event, ...]

    def events(self) -> list[Event]:
        """All that the client releases."""
        trained = [steps for steps in (self.pretrain, self.pools) if steps is not None]
        return [*self.fixed, *(steps.planned(self.noise, steps.rounds) for steps in trained)]


def plan_examples(
    factory: Factory, examples: int, labelled: int, already: tuple[Charges, ...] = ((),)
) -> ExamplePlan:
    """The plan of a client with so many training examples, `labelled` of them with labels; both
    numbers are public.

    `already`: what earlier runs may have released of it; the noise keeps the budget together with
    any one of these histories.

    Raises:
        PrivacyError: what is released beside training alone passes the budget.
    """
    config, pretrain, pools = factory.facts.calibrated_for, None, None
    if config.pretrain.trains:
        path = TrainingPath(factory, "pretrain")
        pretrain = Steps.of(path, config.pretrain, examples, config.pretrain.rounds)
    trained = labelled if config.pools.task == "supervised" else examples
    if config.pools.enabled and trained >= 2:
        path = TrainingPath(factory, "cluster")
        pools = Steps.of(path, config.pools, trained, config.pools.rounds)
    fixed, noise = fixed_releases(factory), config.privacy.noise
    if pretrain is None and pools is None and config.noises_moments:
        noise = factory.view_moments.moments.noise_multiplier
    if noise is None:
        budget = config.privacy.epsilon, config.privacy.delta, Adjacency(config.privacy.adjacency)
        noise = max(_noise(*budget, pretrain, pools, fixed, history) for history in already)
    return ExamplePlan(noise, pretrain, pools, fixed)


def chooses_by_loss(config: FederationConfig) -> bool:
    """Whether pools are chosen through the exponential mechanism; else by the released sketch, or
    there is nothing to choose.
    """
    pools, privacy = config.pools, config.privacy
    several = privacy.unit == "example" and pools.enabled and pools.count > 1
    return several and privacy.chooses_by_loss(pools.start)


def chooses_in(config: FederationConfig, round_number: int) -> bool:
    """Whether this round of the cluster phase is one in which clients choose anew."""
    return chooses_by_loss(config) and round_number % config.privacy.choice_every == 0


def choice_of(config: FederationConfig, size: int) -> PrivateChoice:
    """The mechanism by which a client with so many examples to choose by chooses."""
    privacy = config.privacy
    return PrivateChoice(
        privacy.choice_epsilon, privacy.choice_bound, max(1, size), privacy.choice_stay
    )


def fixed_releases(factory: Factory) -> tuple[Event, ...]:
    """What a client releases beside its training: into the sums of view moments, sketches, and
    choices of a pool.
    """
    config, sketch = factory.facts.calibrated_for, factory.sketch.released
    releases: list[Event] = [*factory.view_moments.events()] if config.noises_moments else []
    releases += [] if sketch is None else sketch.events()
    choices = sum(chooses_in(config, number) for number in range(config.pools.rounds))
    if choices:
        releases.append(choice_of(config, 1).event(choices))
    return tuple(releases)


@lru_cache(maxsize=8192)
def _noise(
    epsilon: float,
    delta: float,
    adjacency: Adjacency,
    pretrain: Steps | None,
    pools: Steps | None,
    fixed: tuple[Event, ...],
    history: Charges,
) -> float:
    """One multiplier for all steps; clients of one size share the search."""

    def events(noise: float) -> list[Event]:
        return ExamplePlan(noise, pretrain, pools, fixed).events()

    if pretrain is None and pools is None:
        return 1.0
    remedy = (
        "release less beside training: a smaller privacy.sketch_epsilon or privacy.moment_epsilon, "
        "fewer or cheaper choices, another pools.start"
    )
    return noise_of_run(events, epsilon, delta, adjacency, also=history, remedy=remedy)
