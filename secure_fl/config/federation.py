"""The whole run: all tables, and what must hold between them."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from secure_fl.config.cohorts import Rule, check_cohorts, group_sizes
from secure_fl.config.columns import column_rules
from secure_fl.config.privacy import PrivacyConfig
from secure_fl.config.section import Section
from secure_fl.config.security import SecurityConfig, SumRules
from secure_fl.config.tables import (
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    PartitionConfig,
    PoolsConfig,
    PretrainConfig,
    RuntimeConfig,
    ViewsConfig,
)
from secure_fl.errors import ConfigError


class FederationConfig(Section):
    """A whole run. Without arguments: digits, twelve clients in three rotation groups, SSD, then
    three pools.

    Raises:
        ConfigError: naming the field, the value and the remedy.
    """

    name: str = Field("secure-fl", min_length=1, max_length=80, description="shown in reports")
    seed: int = Field(
        0,
        ge=0,
        description="everything random follows from it, but noise and "
        "keys, which nobody can repeat",
    )
    data: DataConfig = DataConfig()
    partition: PartitionConfig = PartitionConfig()
    views: ViewsConfig = ViewsConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    pretrain: PretrainConfig = PretrainConfig()
    pools: PoolsConfig = PoolsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    security: SecurityConfig = SecurityConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def augments(self) -> bool:
        """Whether any phase makes views of examples."""
        trained = self.pretrain.mode in ("federated", "centralized")
        measured = self.evaluate.enabled and self.pretrain.mode != "none"
        return trained or measured or (self.pools.enabled and self.pools.task == "self_supervised")

    @property
    def needs_classes(self) -> bool:
        """Whether something is made for a number of classes: heads, or sketches split by label."""
        pools = self.pools
        return pools.enabled and (
            pools.task == "supervised" or (pools.start == "sketch" and pools.sketch == "labelled")
        )

    @property
    def noises_sketches(self) -> bool:
        """Whether sketches leave clients with noise only: in every protected run, and where
        examples are to be hidden.
        """
        noised = self.security.protection != "plain" or self.privacy.unit == "example"
        return noised and self.pools.enabled and self.pools.start == "sketch"

    @model_validator(mode="before")
    @classmethod
    def _private_defaults(cls, tables: Any) -> Any:
        """In the open, and under differential privacy, some settings have other defaults; what is
        set stays, and is refused if it cannot hold.
        """
        given = dict(tables)
        if _setting(given.get("pools"), "start") in _OPEN_STARTS:
            given["security"] = _with_defaults(given.get("security"), {"protection": "plain"})
        rounds = _setting(given.get("pools"), "rounds")
        if (
            isinstance(rounds, int)
            and 1 <= rounds <= PoolsConfig.model_fields["warmup_rounds"].default
        ):
            given["pools"] = _with_defaults(given.get("pools"), {"warmup_rounds": rounds - 1})
        unit = _setting(given.get("privacy"), "unit")
        if _setting(given.get("pools"), "count") == 1:  # there is nothing to find
            trained = _setting(given.get("pretrain"), "mode") != "none"
            given["pools"] = _with_defaults(
                given.get("pools"), {"start": "pretrained" if trained else "random"}
            )
        if (
            unit not in ("example", "client")
            and _setting(given.get("security"), "protection") == "plain"
        ):
            given["pretrain"] = _with_defaults(given.get("pretrain"), {"weights": "examples"})
            given["pools"] = _with_defaults(
                given.get("pools"), {"weights": "examples", "sketch_starts": 32}
            )
        if unit == "client":
            given["pools"] = _with_defaults(given.get("pools"), {"start": "pretrained"})
        if unit in ("example", "client"):
            given["model"] = _with_defaults(given.get("model"), {"norm": "group"})
        if unit == "example":
            given["objective"] = _with_defaults(given.get("objective"), {"form": "normalized"})
            if _setting(given.get("model"), "encoder") != "resnet18":
                given["model"] = _with_defaults(given.get("model"), {"features": 64})
        return given

    @model_validator(mode="after")
    def _tables_agree(self) -> Self:
        for holds, field, value, problem, remedy in self._rules():
            if not holds:
                raise ConfigError(problem, field=field, value=value, remedy=remedy)
        if self.knows_clients:
            self.check_sums(self.partition.clients)
        return self

    @property
    def knows_clients(self) -> bool:
        """Whether the configuration says how many clients there are.

        Otherwise they are counted once the data are read: where these may bring clients of their
        own, and where a kind was chosen for examples that the configuration does not name.
        """
        if self.partition.kind in ("auto", "natural"):
            return self.partition.kind == "auto" and self.data.packaged
        return (
            "sources" in self.data.model_fields_set or "kind" not in self.partition.model_fields_set
        )

    def check_sums(self, clients: int) -> None:
        """Refuse rounds that call too few clients for their pools, and protected ones whose
        thresholds cannot hold, for so many clients.

        Raises:
            ConfigError: naming the settings that disagree.
        """
        check_cohorts(self, clients)
        if self.security.protection == "plain":
            return
        for cohort in self.cohorts(clients):
            self.security.sums(cohort, self.privacy.colluders)

    def weakest_sums(self, clients: int) -> SumRules:
        """The rules of the protected sums that fewest colluders open: what a run may claim of all
        its sums.
        """
        rules = (
            self.security.sums(cohort, self.privacy.colluders) for cohort in self.cohorts(clients)
        )
        return min(rules, key=lambda each: (each.against_a_lying_server, each.threshold))

    def cohorts(self, clients: int) -> set[int]:
        """Sizes of the cohorts that are summed, of so many clients: of groups, where updates are
        summed in groups; all, for sketches.
        """
        phases = (
            (self.pretrain.mode == "federated", self.pretrain),
            (self.pools.enabled, self.pools),
        )
        sizes = {settings.cohort_size(clients) for runs, settings in phases if runs} or {clients}
        if self.security.robust != "none":
            sizes = {each for size in sizes for each in group_sizes(size, self.security.group_size)}
        return sizes | ({clients} if self.pools.enabled and self.pools.start == "sketch" else set())

    def _rules(self) -> list[Rule]:
        """What must hold between tables."""
        pretrain, pools, data = self.pretrain, self.pools, self.data
        crop = self.views.crop_scale
        shares = self.evaluate.fine_tune
        # fmt: off
        return [
            (pretrain.mode != "centralized" or pretrain.source is not None, "pretrain.source", None,
             "centralized pre-training has no data",
             'name a set in [pretrain.source], or set pretrain.mode = "federated"'),
            (pretrain.mode != "load" or pretrain.load_from is not None, "pretrain.load_from", None,
             "no run folder to load from", "set pretrain.load_from to a finished run folder"),
            (not pools.enabled or pools.start != "pretrained" or pretrain.mode != "none",
             "pools.start", pools.start,
             "there is no pre-trained encoder",
             'set pools.start = "random" or pretrain.mode = "federated"'),
            (pools.enabled or pretrain.mode != "none", "pools.enabled", pools.enabled,
             "both phases are switched off", "enable the pools or choose a pretrain.mode"),
            (not pools.enabled or pools.select_on == "train" or data.validation_fraction > 0,
             "data.validation_fraction", data.validation_fraction,
             "clients are to choose on validation data but keep none",
             'set data.validation_fraction = 0.1, or pools.select_on = "train"'),
            (not pools.enabled or pools.task == "supervised" or pools.select_by == "loss",
             "pools.select_by", pools.select_by,
             "a self-supervised pool has no accuracy", 'set pools.select_by = "loss"'),
            (not pools.enabled or pools.start != "sketch" or pools.warmup_rounds < pools.rounds,
             "pools.warmup_rounds", pools.warmup_rounds,
             "no round is left after the warm-up",
             f"set it below pools.rounds = {pools.rounds}, leave it out, or set more pools.rounds"),
            (self.partition.kind != "natural" or not self.partition.ignore_clients,
             "partition.ignore_clients", True,
             "natural clients are those that the data bring",
             "set it to false, or choose another partition.kind"),
            (not self.partition.grouped or self.partition.groups <= self.partition.clients,
             "partition.groups", self.partition.groups,
             f"more groups than the {self.partition.clients} clients (partition.clients)",
             f"at most {self.partition.clients}, or more clients"),
            (crop is None or 0 < crop[0] <= crop[1] <= 1, "views.crop_scale", crop,
             "not an ascending pair within (0, 1]", "for example [0.4, 1.0]"),
            (all(0 < share <= 1 for share in shares), "evaluate.fine_tune", shares,
             "not a list of shares within (0, 1]", "for example [0.01, 0.1]"),
            (not pools.enabled or pools.start not in _OPEN_STARTS or self.security.protection == "plain",
             "pools.start", pools.start,
             "this start shows the server clients' models or choices",
             'set pools.start = "sketch", or security.protection = "plain"'),
            *column_rules(data, self.privacy),
            *self._private_rules(),
            *self._robust_rules(),
        ]
        # fmt: on

    def _private_rules(self) -> list[Rule]:
        """The same for differential privacy."""
        privacy, pretrain, pools = self.privacy, self.pretrain, self.pools
        example, client, private = (
            privacy.unit == "example",
            privacy.unit == "client",
            privacy.unit != "none",
        )
        # fmt: off
        return [
            (not private or (pretrain.weights == "uniform" and pools.weights == "uniform"),
             "pools.weights", (pretrain.weights, pools.weights),
             "a weight is a private count",
             'leave pretrain.weights and pools.weights out, or set them to "uniform"'),
            (not private or not pools.enabled or pools.start not in _OPEN_STARTS, "pools.start",
             pools.start,
             "this start shows clients' models or choices and has no private form",
             'set pools.start = "sketch", "pretrained" or "random"'),
            (privacy.adjacency != "add-remove" or not (private or self.noises_sketches),
             "privacy.adjacency", privacy.adjacency,
             "a run follows each client's number of examples, and an absent client's noise share would be missing",
             'set privacy.adjacency = "zero-out" or "replace-one"; mechanisms used from Python take a public bound'),
            (not example or not pools.enabled or pools.task == "supervised" or pools.count == 1 or not privacy.chooses_by_loss(pools.start),
             "privacy.choice", privacy.choice,
             "a self-supervised score is no mean of bounded losses",
             'set pools.start = "sketch", whose choice is free, or pools.task = "supervised"'),
            (not client or (pretrain.participation == 1 and (pools.participation == 1 or not pools.enabled)),
             "pools.participation",
             (pretrain.participation, pools.participation),
             "every client on the roster adds its noise share each round, and sampling amplifies nothing",
             "set pretrain.participation and pools.participation to 1"),
            (not client or not pools.enabled or pools.start != "sketch", "pools.start", pools.start,
             "the sketch is released at example level only",
             'set pools.start = "pretrained" or "random"'),
            (not example or self.objective.form != "code" or not self.objective.name.startswith("ssd"),
             "objective.form", self.objective.form,
             "its Frobenius norm couples the examples of a batch",
             'leave objective.form out, or set it to "normalized"'),
            (not example or not self.noises_sketches or privacy.sketch_epsilon < privacy.epsilon,
             "privacy.sketch_epsilon", privacy.sketch_epsilon,
             f"sketches alone would use up privacy.epsilon = {privacy.epsilon:g}",
             "set it below privacy.epsilon, or choose another pools.start"),
            (not example or not pools.enabled or privacy.choice != "sketch" or pools.start == "sketch",
             "privacy.choice", privacy.choice,
             "there is no sketch to choose by",
             'set pools.start = "sketch", or privacy.choice = "exponential"'),
        ]
        # fmt: on

    def _robust_rules(self) -> list[Rule]:
        """The same for sums over groups; that there are enough clients for them is checked once the
        data is known.
        """
        security, pools = self.security, self.pools
        none = security.robust == "none"
        least = (
            pools.count * security.min_pool_clients if pools.enabled else security.min_pool_clients
        )
        # fmt: off
        return [
            (none or security.protection != "plain", "security.robust", security.robust,
             "in the open no groups are summed",
             'set security.protection = "bfv+masked" or "masked", or security.robust = "none"'),
            (none or self.privacy.unit != "client", "security.robust", security.robust,
             "each group would be a release of its own, and noise is made for the whole roster",
             'set security.robust = "none", or privacy.unit = "example"'),
            (none or security.group_size >= least, "security.group_size", security.group_size,
             "a group would seldom have min_pool_clients in a pool",
             f"set it to at least pools.count x security.min_pool_clients = {least}, or lower one of the two"),
        ]
        # fmt: on


_OPEN_STARTS = ("restarts", "farthest")
"""Baselines whose server reads what a sum would hide; with them, protection is off unless it is
asked for, and then refused.
"""


def _setting(table: object, name: str) -> object:
    """One setting of a table that is still a mapping, or already a section."""
    return table.get(name) if isinstance(table, dict) else getattr(table, name, None)


def _with_defaults(table: object, defaults: dict[str, Any]) -> object:
    """The table with defaults for what it does not set."""
    if isinstance(table, Section):
        return table.model_copy(
            update={
                name: value
                for name, value in defaults.items()
                if name not in table.model_fields_set
            }
        )
    return (
        {**defaults, **table} if isinstance(table, dict) else defaults if table is None else table
    )
