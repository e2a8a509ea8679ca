"""The public facts of a run, from which its steps, models, sums and noise follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secure_fl.config import FederationConfig
from secure_fl.seeds import derive_seed


@dataclass(frozen=True)
class PublicFacts:
    """What everybody in a federation knows of its run; `Plan.facts` are those of a signed plan.

    Attributes:
        shape: of one example.
        classes: number of classes, 0 without labels.
        clients: size of the roster.
        largest: training examples of the largest client: the weight 1 of weighted averages. 1 under
            privacy, where all clients count alike.
        begun_as: the configuration with which the run began, whose lengths noise was calibrated
            for; None where it is `config`.
    """

    config: FederationConfig
    shape: tuple[int, ...]
    classes: int
    clients: int
    largest: int = 1
    begun_as: FederationConfig | None = None

    @property
    def calibrated_for(self) -> FederationConfig:
        """The configuration whose lengths the noise is made for: a run that goes on for longer
        keeps its noise.
        """
        return self.begun_as or self.config

    @property
    def sums_only(self) -> bool:
        """Whether the server sees sums only, and no client's update."""
        return self.config.security.protection != "plain"

    def seed(self, *purpose: str | int) -> int:
        """The run's public seed for a purpose."""
        return derive_seed(self.config.seed, *purpose)

    def document(self) -> dict[str, Any]:
        """The facts as JSON values."""
        begun = self.begun_as
        return vars(self) | {
            "config": self.config.model_dump(mode="json"),
            "shape": list(self.shape),
            "begun_as": None if begun is None else begun.model_dump(mode="json"),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> PublicFacts:
        """What `document` wrote, the configuration checked."""
        begun = document["begun_as"]
        read = {
            "config": FederationConfig(**document["config"]),
            "shape": tuple(document["shape"]),
            "begun_as": None if begun is None else FederationConfig(**begun),
        }
        return cls(**{**document, **read})
