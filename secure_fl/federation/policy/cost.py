"""What a plan would cost this site in privacy: ε and noise, by the functions of the run itself."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from secure_fl.config import FederationConfig, PrivacyConfig
from secure_fl.errors import ConfigError
from secure_fl.federation.facts import PublicFacts

if TYPE_CHECKING:
    from secure_fl.federation.factory.client_plan import ClientPlan
    from secure_fl.federation.factory.example_plan import ExamplePlan

Figure = float | None
"""A number of the plan: infinite where nothing bounds it, None where it cannot be known here."""
_DOUBT = 1.003
"""By which a plan's quick ε may be above the fine one, which decides."""


@dataclass(frozen=True)
class OwnData:
    """What the site says of its own examples; it stays with the site. Only ε and noise need it.

    Attributes:
        examples: training examples, that is without those held out.
        labelled: how many of them have labels; all, when None.
        shape: of one example, such as (1, 28, 28).
        classes: number of classes of the federation.
    """

    examples: int | None = None
    labelled: int | None = None
    shape: tuple[int, ...] | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        counts = [("examples", self.examples, 2), ("labelled", self.labelled, 0)]
        counts += [("classes", self.classes, 0), *(("shape", n, 1) for n in self.shape or ())]
        for name, value, least in counts:
            if value is not None and value < least:
                raise ConfigError("too few", name, value, f"at least {least}")


def account(
    config: FederationConfig, clients: int, own: OwnData, accounted: Set[str]
) -> tuple[Figure, Figure]:
    """(ε, noise multiplier), only what is in `accounted` where it takes an accountant.

    A budget is what the site's own gate admits, so ε is never below it. Noise that is not set is
    made for the budget by the site itself; noise that is set may spend more than the budget says.

    Raises:
        PrivacyError: no noise keeps the plan within its own budget, or it has no mechanism.
    """
    privacy = config.privacy
    if privacy.unit == "none":
        return inf, 0.0
    if privacy.noise is None:
        plan = _planned(config, clients, own) if "noise" in accounted else None
        return privacy.epsilon, None if plan is None else _least_noise(plan)
    plan = _planned(config, clients, own) if "epsilon" in accounted else None
    if plan is None:
        return None, privacy.noise
    return max(privacy.epsilon, _spent(plan, config.privacy)), privacy.noise


def _spent(plan: ExamplePlan | ClientPlan, privacy: PrivacyConfig) -> float:
    """ε of all releases, as `secure-fl privacy plan` says it; close to the budget, finer."""
    from secure_fl.privacy.accounting import Charge, epsilon_of, planned_epsilon
    from secure_fl.privacy.adjacency import Adjacency

    charges = [Charge(event, Adjacency(privacy.adjacency)) for event in plan.events()]
    spent = planned_epsilon(charges, privacy.delta)
    close = privacy.epsilon < spent <= privacy.epsilon * _DOUBT
    return epsilon_of(charges, privacy.delta) if close else spent


def _planned(
    config: FederationConfig, clients: int, own: OwnData
) -> ExamplePlan | ClientPlan | None:
    """All that the plan would have this site release; None where the site has not said enough."""
    if config.privacy.unit == "client":
        return None if own.shape is None else _client_plan(config, clients, own.shape, own.classes)
    if own.examples is None:
        return None
    labelled = own.examples if own.labelled is None else own.labelled
    return _example_plan(config, clients, own.examples, labelled)


def _least_noise(plan: ExamplePlan | ClientPlan) -> float:
    from secure_fl.federation.factory.example_plan import ExamplePlan

    if isinstance(plan, ExamplePlan):
        return plan.noise
    return min(level.noise_multiplier for level in (plan.pretrain, plan.pools) if level is not None)


def _client_plan(
    config: FederationConfig, clients: int, shape: tuple[int, ...], classes: int | None
) -> ClientPlan | None:
    """The run's own plan; the models are built once, since noise is drawn for each parameter."""
    import torch

    from secure_fl.federation.factory.factory import Factory
    from secure_fl.training.device import Compute

    facts = PublicFacts(config, shape, classes or config.data.classes or 0, clients)
    return Factory.of(facts, compute=Compute(torch.device("cpu"))).client_plan


def _example_plan(
    config: FederationConfig, clients: int, examples: int, labelled: int
) -> ExamplePlan:
    """The run's own plan for one client of this size.

    What a release costs depends on sizes, rates, steps and mechanisms, not on what examples look
    like: shape, classes and encoder are placeholders here, and no model is built.
    """
    import torch
    from torch import nn

    from secure_fl.federation.factory.example_plan import plan_examples
    from secure_fl.federation.factory.factory import Factory
    from secure_fl.training.device import Compute

    factory = Factory(
        PublicFacts(config, (1, 8, 8), classes=2, clients=clients),
        compute=Compute(torch.device("cpu")),
        augment=lambda batch: batch,
        make_encoder=lambda _seed: nn.Identity(),
        features=config.model.features or 64,
        separations=None,
    )
    return plan_examples(factory, examples, labelled)
