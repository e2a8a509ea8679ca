"""The whole run: all tables, and what must hold between them."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from secure_fl.config.agreement import MOMENT_ROUNDS, OPEN_STARTS, rules_between
from secure_fl.config.cohorts import cohort_rules, group_sizes
from secure_fl.config.data_tables import DataConfig, PartitionConfig, ViewsConfig
from secure_fl.config.method import method_of, setting
from secure_fl.config.privacy import PrivacyConfig
from secure_fl.config.section import Section, require
from secure_fl.config.security import SecurityConfig, SumRules
from secure_fl.config.tables import (
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    PoolsConfig,
    PretrainConfig,
    RuntimeConfig,
)


class FederationConfig(Section):
    """A whole run. Without arguments: digits, twelve clients in three rotation groups, SSD, then
    three pools.

    Raises:
        ConfigError: naming the field, the value and the remedy.
    """

    name: str = Field("secure-fl", min_length=1, max_length=80)
    """shown in reports"""
    seed: int = Field(0, ge=0)
    """everything random follows from it, but noise and keys, which nobody can repeat"""
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
            pools.task == "supervised"
            or (pools.start == "sketch" and pools.sketch in ("labelled", "conditional"))
        )

    @property
    def noises_sketches(self) -> bool:
        """Whether sketches leave clients with noise only: protected, or to hide examples."""
        noised = self.security.protection != "plain" or self.privacy.unit == "example"
        return noised and self.pools.enabled and self.pools.start == "sketch"

    @property
    def noises_moments(self) -> bool:
        """Whether clients sum view moments with shares of noise."""
        return self.pretrain.sums_moments and self.privacy.unit == "example"

    @property
    def sketches_first(self) -> bool:
        """Whether sketches come before pre-training, since the objective's weights follow them:
        under example-level privacy nothing else is released that says how far clients differ.
        """
        return self.objective.adaptive and self.privacy.unit == "example"

    @property
    def keeps_encoder(self) -> bool:
        """Whether clients must keep the pre-trained encoder beside the pools."""
        pools = self.pools
        sketches = pools.start == "sketch" and pools.sketch_of == "encoder"
        return pools.enabled and (sketches or pools.encoder == "frozen")

    @property
    def own_views(self) -> ViewsConfig:
        """How views are made, with what is left open as the run's encoder is best made
        (docs/private-accuracy.md): the partition says whether clients' images are turned.
        """
        if not self.pretrain.sums_moments:
            return self.views
        turn = 180.0 if self.partition.kind == "rotation" else 0.0
        best = {"crop_scale": (0.6, 1.0), "turn": turn}
        left = {name: value for name, value in best.items() if getattr(self.views, name) is None}
        return self.views.model_copy(update=left)

    @model_validator(mode="before")
    @classmethod
    def _private_defaults(cls, tables: Any) -> Any:
        """In the open, and under differential privacy, some settings have other defaults; what is
        set stays, and is refused if it cannot hold.
        """
        given = dict(tables)
        if setting(given.get("pools"), "start") in OPEN_STARTS:
            given["security"] = _with_defaults(given.get("security"), {"protection": "plain"})
        rounds = setting(given.get("pools"), "rounds")
        if (
            isinstance(rounds, int)
            and 1 <= rounds <= PoolsConfig.model_fields["warmup_rounds"].default
        ):
            given["pools"] = _with_defaults(given.get("pools"), {"warmup_rounds": rounds - 1})
        unit = setting(given.get("privacy"), "unit")
        given = _with_method(given)
        moments = setting(given["pretrain"], "method") == "view_moments"
        if setting(given.get("pools"), "count") == 1:  # there is nothing to find
            trained = setting(given.get("pretrain"), "mode") != "none"
            given["pools"] = _with_defaults(
                given.get("pools"), {"start": "pretrained" if trained else "random"}
            )
        if (
            unit not in ("example", "client")
            and setting(given.get("security"), "protection") == "plain"
        ):
            given["pretrain"] = _with_defaults(given.get("pretrain"), {"weights": "examples"})
            open_sums = {"weights": "examples", "sketch_starts": 32, "sketch_iterations": 11}
            if setting(given.get("pools"), "sketch") == "conditional":
                open_sums["sketch_starts"] = 128
            given["pools"] = _with_defaults(given.get("pools"), open_sums)
        if unit == "client":
            given["pools"] = _with_defaults(given.get("pools"), {"start": "pretrained"})
        if unit in ("example", "client"):
            given["model"] = _with_defaults(given.get("model"), {"norm": "group"})
        if unit == "example":
            given["objective"] = _with_defaults(given.get("objective"), {"form": "normalized"})
            if setting(given.get("model"), "encoder") != "resnet18" and not moments:
                given["model"] = _with_defaults(given.get("model"), {"features": 64})
        return given

    @model_validator(mode="after")
    def _tables_agree(self) -> Self:
        require(rules_between(self))
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
        require(cohort_rules(self, clients))
        if self.security.protection == "plain":
            return
        for cohort in self.cohorts(clients):
            self.security.sums(cohort, self.privacy.colluders)

    def weakest_sums(self, clients: int) -> SumRules:
        """The rules of the protected sums that fewest colluders open: what a run may claim."""
        rules = (
            self.security.sums(cohort, self.privacy.colluders) for cohort in self.cohorts(clients)
        )
        return min(rules, key=lambda each: (each.against_a_lying_server, each.threshold))

    def cohorts(self, clients: int) -> set[int]:
        """Sizes of the cohorts that are summed: of groups, all, and for sketches everybody."""
        phases = (
            (self.pretrain.mode == "federated", self.pretrain),
            (self.pools.enabled, self.pools),
        )
        sizes = {settings.cohort_size(clients) for runs, settings in phases if runs} or {clients}
        if self.security.robust != "none":
            sizes = {each for size in sizes for each in group_sizes(size, self.security.group_size)}
        return sizes | ({clients} if self.pools.enabled and self.pools.start == "sketch" else set())


def _with_method(given: dict[str, Any]) -> dict[str, Any]:
    """The tables with the method of pre-training that `auto` stands for, and with what view moments
    leave no choice of.
    """
    table, named = given.get("pretrain"), {"method": method_of(given)}
    if isinstance(table, Section):
        pretrain: object = table.model_copy(update=named)
    else:
        pretrain = {**table, **named} if isinstance(table, dict) else table or named
    if named["method"] != "view_moments":
        return given | {"pretrain": pretrain}
    pretrain = _with_defaults(pretrain, {"rounds": MOMENT_ROUNDS})
    pools = _with_defaults(given.get("pools"), {"encoder": "frozen"})
    return given | {"pretrain": pretrain, "pools": pools}


def _with_defaults(table: object, defaults: dict[str, Any]) -> object:
    """The table with defaults for what it does not set."""
    if isinstance(table, Section):
        unset = set(defaults) - table.model_fields_set
        return table.model_copy(update={name: defaults[name] for name in unset})
    return (
        {**defaults, **table} if isinstance(table, dict) else defaults if table is None else table
    )
