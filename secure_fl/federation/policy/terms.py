"""What a plan asks of a site, in the numbers that the site's policy judges.

Everything here is computed by the site from the plan's configuration and the size of its roster,
by the same functions that the run will use. What a plan says of itself (an ε, a threshold in a
comment, a report) is not looked at. Only what no configuration says is taken from the signed
document: the roster, the days, the digests, and whether the server is given the models.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import TYPE_CHECKING, Any

from secure_fl import __version__
from secure_fl.config import FederationConfig
from secure_fl.errors import ConfigError
from secure_fl.federation.policy.cost import Figure, OwnData, account

if TYPE_CHECKING:
    from secure_fl.federation.plan import Plan

SOURCE = "secure_fl"
"""The name under which a plan gives the `code_digest` that all parties are to have."""
NOBODY = "nobody"
"""The key holder where nothing is encrypted."""


@dataclass(frozen=True)
class Signed:
    """What a signed plan says beside its configuration. None: nothing.

    Attributes:
        roster_revision, roster_digest: of the roster in force, its signature checked.
        plan: digest of the plan's bytes, computed here, 64 hex digits.
        code: digest of the source that all parties are to run, 64 hex digits.
        begin, end: first and last day of the study.
        publish_models: whether the server is given the models.
    """

    roster_revision: int | None = None
    roster_digest: str | None = None
    plan: str | None = None
    code: str | None = None
    begin: datetime.date | None = None
    end: datetime.date | None = None
    publish_models: bool = False

    @classmethod
    def by(cls, plan: Plan, revision: int) -> Signed:
        """What a plan says, its signature checked. Raises ConfigError: a day that is none."""
        return cls(
            roster_revision=revision,
            roster_digest=plan.roster.hex(),
            plan=plan.digest.hex(),
            code=_one_source(plan.code),
            begin=_day("first_day", plan.first_day),
            end=_day("last_day", plan.last_day),
            publish_models=plan.publish_models,
        )


@dataclass(frozen=True)
class PlanTerms:
    """One plan in numbers.

    **Guarantee**: every number but those of `Signed` follows from the configuration, the number of
    clients and the site's own data. `epsilon` bounds both what the plan would spend of this site's
    budget by the accountant and what the plan's budget would admit.

    **Assumes**: this process's code is what the site will run.

    **Not covered**: what earlier plans released of the same examples, which the site's ledger
    counts; what averages by number of examples show of that number; what the other sites do; ε
    against somebody who opens this site's single upload, of whose noise at client level its own
    share is left: `threshold` and `against_a_liar` say how many clients that takes.

    Attributes:
        unit, adjacency: what differential privacy hides; `none`, and neighbours.
        epsilon, delta: for one example of this site, or for this site; infinite without privacy.
        sketch_epsilon: of the sketches alone; 0 where none leaves, infinite where they leave bare.
        noise: multiplier of the training noise; 0 without privacy.
        clip: bound on the norm of what is noised; infinite without privacy.
        noise_colluders: client level, view moments: colluders whose noise is not counted on;
            infinite elsewhere, where each client's own noise protects it.
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
        said = signed or Signed()
        return cls(
            **_privacy(config, *account(config, clients, own or OwnData(), accounted)),
            **_sums(config, clients),
            rounds=_rounds(config),
            releases=_releases(config),
            publish_models=said.publish_models,
            code=code,
            signed=said,
        )

    @classmethod
    def of_plan(
        cls,
        plan: Plan,
        own: OwnData | None = None,
        *,
        revision: int,
        code: str,
        accounted: Set[str] = frozenset({"epsilon", "noise"}),
    ) -> PlanTerms:
        """The terms of a signed plan, which says shape, classes and clients itself.

        Args:
            plan: opened, so that its signature, digest and roster were checked.
            revision: of the roster in force.

        Raises:
            ConfigError: as `of`, or a day that is none.
            PrivacyError: as `of`.
        """
        known = replace(own or OwnData(), shape=tuple(plan.shape), classes=plan.classes)
        signed, count = Signed.by(plan, revision), len(plan.clients)
        return cls.of(plan.config, count, known, signed=signed, code=code, accounted=accounted)


def _one_source(code: Mapping[str, str]) -> str | None:
    """The digest of the source that a plan asks for; a part that is not known here fits nothing."""
    others = sorted(set(code) - {SOURCE})
    return f"{others[0]}: {code[others[0]]}" if others else code.get(SOURCE)


def _day(name: str, text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text) if text else None
    except ValueError:
        remedy = "a day such as 2026-01-31, or nothing"
        raise ConfigError("not a day", f"plan.{name}", text, remedy) from None


def _privacy(config: FederationConfig, epsilon: Figure, noise: Figure) -> dict[str, Any]:
    privacy, unit = config.privacy, config.privacy.unit
    shares = unit == "client" or config.noises_moments
    return {
        "unit": unit,
        "adjacency": privacy.adjacency,
        "epsilon": epsilon,
        "delta": privacy.delta,
        "sketch_epsilon": _sketch_epsilon(config),
        "noise": noise,
        "clip": inf if unit == "none" else privacy.clip,
        "noise_colluders": privacy.colluders if shares else inf,
        "metrics": config.evaluate.enabled,
    }


def _sums(config: FederationConfig, clients: int) -> dict[str, Any]:
    """What protects a sum, each number the smallest of all sums of a run; in the open none does."""
    security, cohorts = config.security, config.cohorts(clients)
    found: dict[str, Any] = {
        "protection": security.protection,
        "key_holder": security.key_holder if security.protection.startswith("bfv") else NOBODY,
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
