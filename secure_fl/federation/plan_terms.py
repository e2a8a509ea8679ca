"""What a plan asks of a site, in the numbers that the site's policy judges.

Everything here is computed by the site from the plan's configuration and the size of its roster,
by the same functions that the run will use. What a plan says of itself (an ε, a threshold in a
comment, a report) is not looked at. Only the roster, the dates and the digests are taken from the
signed document, which says nothing of them that the site could compute.
"""

from __future__ import annotations

import datetime
from collections.abc import Set
from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING, Any

from secure_fl import __version__
from secure_fl.config import FederationConfig, PrivacyConfig
from secure_fl.errors import ConfigError

if TYPE_CHECKING:
    from secure_fl.federation.client_plan import ClientPlan
    from secure_fl.federation.example_plan import ExamplePlan

Figure = float | None
"""A number of the plan: infinite where nothing bounds it, None where it cannot be known here."""
_DOUBT = 1.003
"""By which a plan's quick ε may be above the fine one, which decides."""
NOBODY = "nobody"
"""The key holder where nothing is encrypted."""


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
        counts = [
            ("examples", self.examples, 2),
            ("labelled", self.labelled, 0),
            ("classes", self.classes, 0),
        ]
        counts += [("shape", size, 1) for size in self.shape or ()]
        for name, value, least in counts:
            if value is not None and value < least:
                raise ConfigError("too few", field=name, value=value, remedy=f"at least {least}")


@dataclass(frozen=True)
class Signed:
    """What a signed plan says beside its configuration. None: nothing.

    Attributes:
        roster_revision, roster_digest: of the roster in force, its signature checked.
        plan: digest of the plan's bytes, computed here, 64 hex digits.
        code: digest of the source that all parties are to run, 64 hex digits.
        begin, end: first and last day of the study.
    """

    roster_revision: int | None = None
    roster_digest: str | None = None
    plan: str | None = None
    code: str | None = None
    begin: datetime.date | None = None
    end: datetime.date | None = None


@dataclass(frozen=True)
class PlanTerms:
    """One plan in numbers.

    Guarantee: every number but those of `Signed` follows from the configuration, the number of
    clients and the site's own data. `epsilon` bounds both what the plan would spend of this site's
    budget by the accountant and what the plan's budget would admit.
    Assumes: this process's code is what the site will run.
    Not covered: what earlier plans released of the same examples, which the site's ledger counts;
    what averages by number of examples show of that number; what the other sites do; ε against
    somebody who opens this site's single upload, of whose noise at client level its own share is
    left: `threshold` and `against_a_liar` say how many clients that takes.

    Attributes:
        unit, adjacency: what differential privacy hides; `none`, and neighbours.
        epsilon, delta: for one example of this site, or for this site; infinite without privacy.
        sketch_epsilon: of the sketches alone; 0 where none leaves, infinite where they leave bare.
        noise: multiplier of the training noise; 0 without privacy.
        clip: bound on the norm of what is noised; infinite without privacy.
        noise_colluders: client level: colluders whose noise is not counted on; infinite elsewhere,
            where each client's own noise protects it.
        metrics: whether measures of the models on this site's examples are made for others.
        protection, key_holder: of the sums; `nobody` where nothing is encrypted.
        publish_models: whether the server is given the models.
        cohort, survivors, pool: fewest clients that are asked for a sum, that a sum is opened of,
            and that a pool in it is opened of; 1 in the open.
        threshold: t, colluding clients that open one update with a server that follows the
            protocol: the fewest over all sums; 0 in the open.
        against_a_liar: the same with a server that lies, 2t - m of m holders of shares.
        clamp: largest change of one parameter in a round.
        rounds: of training, at most; every one may call this site.
        releases: times that something of the site's examples leaves it: updates, sketches, choices.
        code: digest of the source that is installed here, None where nobody asked.
        version: of the package installed here.
        signed: what the signed document says.
    """

    unit: str
    adjacency: str
    epsilon: Figure
    delta: float
    sketch_epsilon: float
    noise: Figure
    clip: float
    noise_colluders: float
    metrics: bool
    protection: str
    key_holder: str
    publish_models: bool
    cohort: int
    survivors: int
    pool: int
    threshold: int
    against_a_liar: int
    clamp: float
    rounds: int
    releases: int
    code: str | None = None
    version: str = __version__
    signed: Signed = Signed()

    @classmethod
    def of(
        cls,
        config: FederationConfig,
        clients: int,
        own: OwnData | None = None,
        *,
        signed: Signed | None = None,
        code: str | None = None,
        accounted: Set[str] = frozenset({"epsilon", "noise"}),
    ) -> PlanTerms:
        """The terms of a configuration among so many clients.

        Args:
            own: what the site knows of its data; without it ε and noise may stay unknown.
            signed: what the signed plan says beside the configuration.
            code: `code_digest()` of this installation, where it is to be judged.
            accounted: which of `epsilon` and `noise` are worth an accountant's time, and torch.

        Raises:
            ConfigError: thresholds that cannot hold for so many clients.
            PrivacyError: no noise keeps the plan within its own budget.
        """
        config.check_sums(clients)
        return cls(
            **_privacy(config, *_account(config, clients, own or OwnData(), accounted)),
            **_sums(config, clients),
            rounds=_rounds(config),
            releases=_releases(config),
            code=code,
            signed=signed or Signed(),
        )


def _privacy(config: FederationConfig, epsilon: Figure, noise: Figure) -> dict[str, Any]:
    privacy, unit = config.privacy, config.privacy.unit
    return {
        "unit": unit,
        "adjacency": privacy.adjacency,
        "epsilon": epsilon,
        "delta": privacy.delta,
        "sketch_epsilon": _sketch_epsilon(config),
        "noise": noise,
        "clip": inf if unit == "none" else privacy.clip,
        "noise_colluders": privacy.colluders if unit == "client" else inf,
        "metrics": config.evaluate.enabled,
    }


def _sums(config: FederationConfig, clients: int) -> dict[str, Any]:
    """The numbers of a cohort, each the smallest of all sums of a run; in the open none protects."""
    security, cohorts = config.security, config.cohorts(clients)
    found: dict[str, Any] = {
        "protection": security.protection,
        "key_holder": security.key_holder if security.protection.startswith("bfv") else NOBODY,
        # No setting today; one that comes must not pass unseen.
        "publish_models": bool(getattr(security, "publish_models", False)),
        "clamp": config.privacy.clip if config.privacy.unit == "client" else security.clamp,
        "cohort": min(cohorts),
    }
    if security.protection == "plain":
        return found | {"survivors": 1, "pool": 1, "threshold": 0, "against_a_liar": 0}
    rules = [security.sums(cohort, config.privacy.colluders) for cohort in cohorts]
    return found | {
        "survivors": min(each.survivors for each in rules),
        "pool": security.min_pool_clients,
        "threshold": min(each.threshold for each in rules),
        "against_a_liar": min(each.against_a_lying_server for each in rules),
    }


def _sketch_epsilon(config: FederationConfig) -> float:
    """Sketches' noise is made from this very number by the site's own code."""
    if not config.pools.enabled or config.pools.start != "sketch":
        return 0.0
    return config.privacy.sketch_epsilon if config.noises_sketches else inf


def _rounds(config: FederationConfig) -> int:
    federated = config.pretrain.rounds if config.pretrain.mode == "federated" else 0
    return federated + (config.pools.rounds if config.pools.enabled else 0)


def _releases(config: FederationConfig) -> int:
    """An update a round; what the pools' start takes; every choice that is released by itself."""
    pools, privacy = config.pools, config.privacy
    starts = {"sketch": 2, "restarts": pools.restart_attempts, "farthest": pools.count}
    started = starts.get(pools.start, 0) if pools.enabled else 0
    chooses = privacy.unit == "example" and pools.enabled and pools.count > 1
    choices = 0
    if chooses and privacy.chooses_by_loss(pools.start):
        choices = ceil(pools.rounds / privacy.choice_every)
    return _rounds(config) + started + choices


def _account(
    config: FederationConfig, clients: int, own: OwnData, accounted: Set[str]
) -> tuple[Figure, Figure]:
    """(ε, noise multiplier).

    A budget is what the site's own gate admits, so ε is never below it. Noise that is not set is
    made for the budget by the site itself; noise that is set may spend more than the budget says.
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
    from secure_fl.privacy.units import Adjacency

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
    from secure_fl.federation.example_plan import ExamplePlan

    if isinstance(plan, ExamplePlan):
        return plan.noise
    return min(level.noise_multiplier for level in (plan.pretrain, plan.pools) if level is not None)


def _client_plan(
    config: FederationConfig, clients: int, shape: tuple[int, ...], classes: int | None
) -> ClientPlan | None:
    """The run's own plan; the models are built once, since noise is drawn for each parameter."""
    import torch

    from secure_fl.federation.blueprint import Blueprint
    from secure_fl.models.build import build_encoder
    from secure_fl.training.device import Compute

    blueprint = Blueprint.draw(
        config,
        shape,
        classes or config.data.classes or 0,
        clients,
        lambda batch: batch,  # no views are made
        lambda seed: build_encoder(config.model, shape, seed),
        Compute(torch.device("cpu")),
    )
    return blueprint.client_plan


def _example_plan(
    config: FederationConfig, clients: int, examples: int, labelled: int
) -> ExamplePlan:
    """The run's own plan for one client of this size.

    What a release costs depends on sizes, rates, steps and mechanisms, not on what examples look
    like: shape, classes and encoder are placeholders here, and no model is built.
    """
    import torch
    from torch import nn

    from secure_fl.federation.blueprint import Blueprint
    from secure_fl.federation.example_plan import plan_examples
    from secure_fl.training.device import Compute

    blueprint = Blueprint(
        config,
        shape=(1, 8, 8),
        classes=2,
        clients=clients,
        compute=Compute(torch.device("cpu")),
        augment=lambda batch: batch,
        make_encoder=lambda _seed: nn.Identity(),
        features=config.model.features or 64,
        separations=None,
    )
    return plan_examples(blueprint, examples, labelled)
