"""How private training in a run reads examples: for each phase the model, the mechanism and the
views. Clients train by these paths, and `path_check` tries them on noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from secure_fl.coins import Draws, Use
from secure_fl.data.views import own_views
from secure_fl.federation.factory.factory import Factory
from secure_fl.objectives.masked import MaskedReconstruction
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.unit_objectives import CrossEntropy
from secure_fl.privacy.engine import Sampling, choose_mechanism
from secure_fl.privacy.mechanisms.mechanism import ExampleMechanism, Labelled
from secure_fl.privacy.mechanisms.per_example import AdaptiveBound, PerExample
from secure_fl.privacy.views_apart import ViewsOf
from secure_fl.training.tasks import train_mode

Views = Tensor | Labelled


@dataclass(frozen=True)
class TrainingPath:
    """One phase's private training of one client; of the first client in the first place where it
    does not matter which.

    Attributes:
        position: the client's place in the round's list, from which some separations follow.
        round: of the phase; random features follow from it, the same at every client.
        difference: how far clients differ, where the objective's weights follow it.
    """

    factory: Factory
    phase: Literal["pretrain", "cluster"]
    client: int = 0
    position: int = 0
    round: int = 0
    difference: float | None = None

    @property
    def supervised(self) -> bool:
        """Whether labels are trained, and not views."""
        return self.phase == "cluster" and self.factory.facts.config.pools.task == "supervised"

    @property
    def frozen(self) -> bool:
        """Whether the encoder is left as it is."""
        return self.phase == "cluster" and self.factory.facts.config.pools.encoder == "frozen"

    @property
    def objective(self) -> Objective:
        """The objective of the self-supervised task."""
        return self.factory.objective(self.client, self.position, self.difference)

    @property
    def augments(self) -> bool:
        """Whether the augmentation makes views."""
        return not self.supervised and not isinstance(self.objective, MaskedReconstruction)

    @property
    def members(self) -> int:
        """Examples in a unit of the mechanism."""
        privacy = self.factory.facts.config.privacy
        return privacy.group_size if privacy.mechanism == "group" and not self.supervised else 1

    @property
    def views(self) -> int:
        """Views that are made of an example."""
        privacy = self.factory.facts.config.privacy
        return privacy.group_views if privacy.mechanism == "group" else 2

    def mechanism(self, examples: int, rate: float, noise: float) -> ExampleMechanism[Views]:
        """The mechanism over so many examples, each in a step with probability `rate`. Raises
        PrivacyError: the objective has none, or the numbers make no sense.
        """
        privacy = self.factory.facts.config.privacy
        if self.supervised:
            clip = AdaptiveBound(privacy.clip) if privacy.adaptive_clip else privacy.clip
            return PerExample(CrossEntropy(), examples, rate, noise, clip)
        made = choose_mechanism(
            self.objective,
            Sampling(examples, rate, noise, privacy.clip),
            dimension=self.factory.embedding,
            seed=self.factory.facts.seed("random features", self.phase, self.round),
            mechanism=privacy.mechanism,
            group_size=privacy.group_size,
            group_views=privacy.group_views,
            statistic_share=privacy.statistic_share,
            pairs=privacy.features // 2,
        )
        return cast("ExampleMechanism[Views]", made)

    def views_of(self, x: Tensor, y: Tensor) -> ViewsOf[Views]:
        """What the mechanism takes of examples `[N, ...]` and labels `[N]`."""
        factory, device, count = self.factory, self.factory.compute.device, self.views
        objective = None if self.supervised else self.objective

        def views_of(index: Tensor, draws: Draws) -> Views:
            chosen = index.flatten()
            drawn = x[chosen].to(device)
            if objective is None:
                return Labelled(drawn[:, None], y[chosen].to(device))
            if isinstance(objective, MaskedReconstruction):
                coins = draws.uniform(objective.places(drawn), Use.HIDING)
                visible, hidden = objective.hide(drawn, coins)
                return Labelled(visible[:, None], hidden)
            views, form = own_views(factory.augment, drawn, draws, count), tuple(index.shape)
            return torch.cat([view.unflatten(0, form) for view in views], dim=1)

        return views_of

    def model(self) -> nn.Module:
        """A fresh model, in the mode that it is trained in."""
        pretrains, factory = self.phase == "pretrain", self.factory
        model = factory.encoder_projector() if pretrains else factory.pool_model(0)
        train_mode(model, self.frozen)
        return model
