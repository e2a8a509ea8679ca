"""One client of a federation under example-level privacy, whose noise can be drawn again."""

from __future__ import annotations

from typing import Any

import pytest
from federation.parts import engine_of
from helpers import make_images, tiny_config
from torch import Tensor

from secure_fl import Federation
from secure_fl.config import FederationConfig
from secure_fl.engines import embedded
from secure_fl.federation.asks import TrainEncoder
from secure_fl.models.state import to_vector
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.noise import NoiseSource

LR, CLIP, NOISE, CLIENTS = 1e-3, 0.5, 2.0, 4
EXAMPLES = make_images(240)
STILL: dict[str, Any] = {
    "momentum": 0.0,
    "weight_decay": 0.0,
    "lr": LR,
    "local_epochs": 1,
    "batch_size": 16,
    "rounds": 1,
}


def config(
    objective: dict[str, Any] | None = None,
    privacy: dict[str, Any] | None = None,
    **tables: dict[str, Any],
) -> FederationConfig:
    """One round of pre-training by small steps, so that a run's change is the sum of its
    noised gradients.
    """
    settings = {"unit": "example", "noise": NOISE, "epsilon": 1e6, "clip": CLIP, **(privacy or {})}
    base: dict[str, dict[str, Any]] = {
        "pretrain": STILL,
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
    }
    return tiny_config(
        **{**base, **tables}, objective=objective or {"name": "align_uniform"}, privacy=settings
    )


class Client:
    """One client of a federation, with noise that can be drawn again, and what it says that
    answering releases.
    """

    def __init__(
        self, settings: FederationConfig, monkeypatch: pytest.MonkeyPatch, seed: int = 0
    ) -> None:
        monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(seed))
        self.federation = Federation(settings, data=EXAMPLES)
        (self.client,) = engine_of(self.federation, clients=self.federation.clients[:1]).clients
        self.examples = len(self.federation.clients[0].train)

    def pretrained(self) -> tuple[Tensor, GaussianEvent]:
        """The released change of the model, and what was charged for it."""
        ask = TrainEncoder(0, to_vector(self.federation.factory.encoder_projector()))
        (release,) = self.client.protection.releases(ask, 0)
        assert isinstance(release.event, GaussianEvent)
        return self.client.protection.train_encoder(ask, 0).pooled, release.event
