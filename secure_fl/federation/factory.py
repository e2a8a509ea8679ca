"""What everybody in a federation knows: the configuration, the shapes and how models are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from secure_fl.config import FederationConfig
from secure_fl.data.views import Augmentation
from secure_fl.errors import ConfigError
from secure_fl.federation.client_plan import ClientPlan, plan_clients
from secure_fl.federation.grouping import check_groups
from secure_fl.federation.sketch_form import SketchForm
from secure_fl.models.build import build_head, build_projector
from secure_fl.models.heads import Classifier, EncoderProjector, feature_width
from secure_fl.models.state import buffer_places, moving_buffers, to_vector, vector_size
from secure_fl.objectives.build import build_objective, separates
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.separation import SeparationPlan
from secure_fl.pools.pool_set import PoolLayout, PoolModel
from secure_fl.privacy.private_sketch import PrivateSketch
from secure_fl.privacy.views_apart import Examples
from secure_fl.secure_sum.grid import Grid
from secure_fl.secure_sum.protections import layout_of
from secure_fl.seeds import derive_seed
from secure_fl.training.device import Compute
from secure_fl.training.tasks import SelfSupervised, Supervised, Task


@dataclass(frozen=True)
class Blueprint:
    """Public facts of one federation, equal at the server and at every client.

    Attributes:
        shape: of one example.
        classes: number of classes, 0 without labels.
        clients: size of the roster.
        make_encoder: seed -> a fresh encoder.
        separations: who owns which dimensions; None unless the objective is SSD.
        largest: training examples of the largest client: the weight 1 of weighted averages. 1 under
            privacy, where all clients count alike.
        begun_as: the configuration with which the run began, whose lengths noise was calibrated
            for; None where it is `config`.
    """

    config: FederationConfig
    shape: tuple[int, ...]
    classes: int
    clients: int
    compute: Compute
    augment: Augmentation
    make_encoder: Callable[[int], nn.Module]
    features: int
    separations: SeparationPlan | None
    largest: int = 1
    begun_as: FederationConfig | None = None

    @classmethod
    def draw(
        cls,
        config: FederationConfig,
        shape: tuple[int, ...],
        classes: int,
        clients: int,
        augment: Augmentation,
        make_encoder: Callable[[int], nn.Module],
        compute: Compute,
        largest: int = 1,
    ) -> Blueprint:
        """Build the models once, to find their widths and refuse what does not fit.

        Raises:
            ModelError: the encoder does not fit the examples.
            ConfigError: distillation between unequal widths, supervised pools without labels, too
                few clients for a round's sums or for robust averages.
            ObjectiveError: more clients than dimensions.
        """
        config.check_sums(clients)
        check_groups(config, clients)
        features = feature_width(make_encoder(0), shape)
        separations = _separations(config, features, clients)
        _check_labels(config, classes)
        drawn = cls(
            config,
            shape,
            classes,
            clients,
            compute,
            augment,
            make_encoder,
            features,
            separations,
            largest,
        )
        if config.privacy.unit == "client":
            drawn._refuse_moving_buffers()
        return drawn

    def _refuse_moving_buffers(self) -> None:
        """A client's update is clipped whole: a statistic that moves by hundreds would leave
        nothing of what was learned.
        """
        model = self.encoder_projector()
        moving = moving_buffers(model, Examples(self.shape, self.compute.device).noise(4))
        if moving:
            problem = (
                "running statistics have no bound, and the norm clip of client-level privacy is "
                "over the whole update"
            )
            raise ConfigError(
                problem,
                field="model.norm",
                value=moving[0],
                remedy='set model.norm = "group", or use GroupNorm in your encoder',
            )

    @cached_property
    def client_plan(self) -> ClientPlan | None:
        """The mechanisms of client-level privacy; None without it."""
        if self.config.privacy.unit != "client":
            return None
        shared, pooled = (
            self.layout.parts(self.pool_model(0))
            if self.config.pools.enabled
            else (torch.empty(0), torch.empty(0))
        )
        return plan_clients(
            self.calibrated_for,
            self.clients,
            len(to_vector(self.encoder_projector())),
            (len(shared), len(pooled)),
        )

    @property
    def calibrated_for(self) -> FederationConfig:
        """The configuration whose lengths the noise is made for: a run that goes on for longer
        keeps its noise.
        """
        return self.begun_as or self.config

    @property
    def secure(self) -> bool:
        """Whether the server sees sums only."""
        return self.config.security.protection != "plain"

    def grid(self, name: str) -> Grid:
        """How updates of a step (`pretrain`, `cluster`) become integers, without
        client-level privacy.
        """
        return self._grids[name]

    def single_grid(self, width: int, pools: int = 1) -> Grid:
        """How vectors become integers whose values lie within one."""
        layout = layout_of(self.config.security.protection)
        return Grid(self.clients, 0, width, pools, 1.0, False, layout)

    @cached_property
    def _grids(self) -> dict[str, Grid]:
        """Made once; a step that does not run has no grid."""
        security, pretrain, pools = self.config.security, self.config.pretrain, self.config.pools
        layout, clamp, wide = layout_of(security.protection), security.clamp, security.buffer_clamp
        trained, weighted = self.encoder_projector(), pretrain.weights == "examples"
        size, places = vector_size(trained), buffer_places(trained)
        found = {"pretrain": Grid(self.clients, 0, size, 1, clamp, weighted, layout, places, wide)}
        if pools.enabled:
            model = self.pool_model(0)
            shared, pooled = (len(part) for part in self.layout.parts(model))
            places = self.layout.buffers(model)
            found["cluster"] = Grid(
                self.clients, shared, pooled, pools.count, clamp, True, layout, places, wide
            )
        return found

    @property
    def embedding(self) -> int:
        """Width of z, the projector's output."""
        return self.config.model.embedding or self.features

    @property
    def feature_seed(self) -> int:
        """Public seed of the random features that stand for the uniformity kernel."""
        return self._seed("random features")

    def encoder(self, seed: int | None = None) -> nn.Module:
        """A fresh encoder on the device; the federation's first one when no seed is given."""
        return self.make_encoder(self._seed("encoder") if seed is None else seed).to(
            self.compute.device
        )

    def encoder_projector(self, seed: int | None = None) -> EncoderProjector:
        """Encoder and projector for the self-supervised phase."""
        encoder = self.encoder(None if seed is None else derive_seed(seed, "encoder"))
        top_seed = self._seed("projector") if seed is None else derive_seed(seed, "projector")
        return EncoderProjector(
            encoder, build_projector(self.config.model, encoder, self.shape, top_seed)
        ).to(self.compute.device)

    def pool_model(self, seed: int) -> PoolModel:
        """One pool's model: encoder and top, both drawn from `seed`."""
        if self.config.pools.task == "self_supervised":
            return self.encoder_projector(seed)
        head = build_head(self.features, self.classes, derive_seed(seed, "head"))
        return Classifier(self.encoder(derive_seed(seed, "encoder")), head).to(self.compute.device)

    @cached_property
    def sketch(self) -> SketchForm:
        """What sketches are made of, where pools start from them."""
        return SketchForm.of(self.config, self.shape, self.classes, self.features)

    @property
    def sketch_width(self) -> int:
        """How many numbers a sketch has."""
        return self.sketch.width

    @property
    def private_sketch(self) -> PrivateSketch | None:
        """How sketches are noised; None where they are not, or there are none."""
        return self.sketch.released

    @property
    def layout(self) -> PoolLayout:
        """How a pool's model is cut into vectors."""
        return PoolLayout(self.config.pools.encoder)

    @property
    def needs_kept_encoder(self) -> bool:
        """Whether clients must keep the pre-trained encoder beside the pools."""
        pools = self.config.pools
        return pools.enabled and (
            (pools.start == "sketch" and pools.sketch_of == "encoder") or pools.encoder == "frozen"
        )

    def objective(self, client: int | None, position: int = 0) -> Objective:
        """The self-supervised objective of one client; without a client, of nobody in
        particular.
        """
        separation = (
            None
            if self.separations is None or client is None
            else self.separations.of(client, position)
        )
        return build_objective(self.config.objective, separation)

    @property
    def pool_weights(self) -> Mapping[str, float]:
        """Weight of each term of the pools' loss."""
        return (
            {"cross_entropy": 1.0}
            if self.config.pools.task == "supervised"
            else self.objective(0).weights
        )

    def pretrain_task(self, client: int | None, position: int = 0) -> SelfSupervised:
        """What a client trains the model for in pre-training; without a client, nobody in
        particular.
        """
        return SelfSupervised(self.objective(client, position), self.augment, self.compute)

    def pool_task(self, client: int, position: int = 0) -> Task:
        """What a client trains its pool for."""
        frozen = self.config.pools.encoder == "frozen"
        if self.config.pools.task == "supervised":
            return Supervised(self.compute, frozen)
        return SelfSupervised(self.objective(client, position), self.augment, self.compute, frozen)

    def _seed(self, *purpose: str | int) -> int:
        return derive_seed(self.config.seed, *purpose)


def _separations(config: FederationConfig, features: int, clients: int) -> SeparationPlan | None:
    """Who owns which dimensions of z; None where nothing is trained by an objective that
    separates them.
    """
    pools = config.pools
    trains = pools.enabled and pools.task == "self_supervised"
    if not separates(config.objective) or not (config.pretrain.mode == "federated" or trains):
        return None
    embedding = config.model.embedding or features
    if config.objective.delta > 0 and embedding != features:
        raise ConfigError(
            f"distillation needs z as wide as h, {features}",
            field="model.embedding",
            value=embedding,
            remedy=f"set model.embedding = {features}, or objective.delta = 0",
        )
    return SeparationPlan.draw(config.objective, embedding, clients, config.seed)


def _check_labels(config: FederationConfig, classes: int) -> None:
    """Refuse pools that need labels of two classes where there are none."""
    pools = config.pools
    if not pools.enabled or classes >= 2:
        return
    if pools.task == "supervised":
        raise ConfigError(
            "supervised pools need labels of two classes",
            field="pools.task",
            value="1 class" if classes else "no labels",
            remedy='set pools.task = "self_supervised", or give labels of two classes or more',
        )
    if pools.start == "sketch" and pools.sketch == "labelled":
        raise ConfigError(
            "there are no labels to split sketches by",
            field="pools.sketch",
            value="labelled",
            remedy='set pools.sketch = "features"',
        )
