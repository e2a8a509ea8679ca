"""What makes a run's models, tasks, views and sums' grids, the same ones at every party."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from secure_fl.config import FederationConfig
from secure_fl.data.views import Augmentation
from secure_fl.errors import ConfigError
from secure_fl.federation.factory.client_plan import ClientPlan, plan_clients
from secure_fl.federation.factory.grouping import check_groups
from secure_fl.federation.factory.moment_plan import plan_moments
from secure_fl.federation.factory.moment_prior import synthetic_moments
from secure_fl.federation.factory.own_code import augmentation, encoder_maker
from secure_fl.federation.factory.sketch_form import SketchForm
from secure_fl.federation.facts import PublicFacts
from secure_fl.models.build import build_head, build_projector
from secure_fl.models.heads import Classifier, EncoderProjector, feature_width
from secure_fl.models.state import buffer_places, moving_buffers, to_vector, vector_size
from secure_fl.models.view_features import WhitenedEncoder
from secure_fl.objectives.adaptive import adapted
from secure_fl.objectives.build import build_objective, separates
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.separation import SeparationPlan
from secure_fl.pools.pool_set import PoolLayout, PoolModel
from secure_fl.privacy.view_moments import ViewMoments
from secure_fl.privacy.views_apart import Examples
from secure_fl.secure_sum.grid import Grid
from secure_fl.secure_sum.protections import layout_of
from secure_fl.seeds import derive_seed
from secure_fl.training.device import Compute
from secure_fl.training.tasks import SelfSupervised, Supervised, Task


@dataclass(frozen=True)
class Factory:
    """Makes what a run's parties compute with, from its public facts and the caller's own code.

    Two factories of the same facts and code make equal things.

    Attributes:
        make_encoder: seed -> a fresh encoder.
        features: width of h, an encoder's output.
        separations: who owns which dimensions; None unless the objective is SSD.
    """

    facts: PublicFacts
    compute: Compute
    augment: Augmentation
    make_encoder: Callable[[int], nn.Module]
    features: int
    separations: SeparationPlan | None

    @classmethod
    def of(
        cls,
        facts: PublicFacts,
        encoder: object = None,
        augment: object = None,
        compute: Compute | None = None,
    ) -> Factory:
        """Build the models once, to find their widths and refuse what does not fit.

        Args:
            encoder, augment: as of `secure_fl.Federation`; None for the configuration's.
            compute: None for what the configuration says.

        Raises:
            ModelError: the encoder does not fit the examples.
            ConfigError: an augmentation that is none, distillation between unequal widths,
                supervised pools without labels, too few clients for a round's sums or for robust
                averages.
            ObjectiveError: more clients than dimensions.
        """
        config, shape = facts.config, facts.shape
        views, maker = augmentation(augment, config, shape), encoder_maker(encoder, config, shape)
        compute = compute or Compute.of(config.runtime)
        config.check_sums(facts.clients)
        check_groups(config, facts.clients)
        features = feature_width(maker(0), shape)
        separations = _separations(facts, features)
        _check_labels(config, facts.classes)
        made = cls(facts, compute, views, maker, features, separations)
        if config.privacy.unit == "client":
            made._refuse_moving_buffers()
        return made

    def _refuse_moving_buffers(self) -> None:
        """A client's update is clipped whole: a statistic that moves by hundreds would leave
        nothing of what was learned.
        """
        noise = Examples(self.facts.shape, self.compute.device).noise(4)
        moving = moving_buffers(self.encoder_projector(), noise)
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
        facts = self.facts
        if facts.config.privacy.unit != "client":
            return None
        model = len(to_vector(self.encoder_projector()))
        shared, pooled = self._pool_widths() if facts.config.pools.enabled else (0, 0)
        return plan_clients(facts.calibrated_for, facts.clients, model, (shared, pooled))

    def _pool_widths(self) -> tuple[int, int]:
        """Lengths of the shared and of the pooled part of a pool's model."""
        shared, pooled = self.pool_layout.parts(self.pool_model(0))
        return len(shared), len(pooled)

    @cached_property
    def view_moments(self) -> ViewMoments:
        """The sums of view moments, where pre-training is by them, and their noise."""
        return plan_moments(self.facts.calibrated_for, self.facts.clients, self.features)

    def view_features(self) -> nn.Module:
        """The fixed map of view moments, on the device."""
        encoder = self.encoder()
        assert isinstance(encoder, WhitenedEncoder)
        return encoder.features.eval()

    @cached_property
    def moment_prior(self) -> Tensor | None:
        """What stands in for the moments that noise hides, `[F, F]`; None where nothing does."""
        if self.facts.config.pretrain.prior == "none":
            return None
        features = self.view_features()
        return synthetic_moments(self.facts.shape, features, self.augment, self.view_moments)

    def grid(self, name: str) -> Grid:
        """How updates of a step (`pretrain`, `cluster`) become integers, without
        client-level privacy.
        """
        return self._grids[name]

    def unit_grid(self, width: int, pools: int = 1) -> Grid:
        """How vectors become integers whose values lie within one."""
        layout = layout_of(self.facts.config.security.protection)
        return Grid(self.facts.clients, 0, width, pools, 1.0, False, layout)

    @cached_property
    def _grids(self) -> dict[str, Grid]:
        """Made once; a step that does not run has no grid."""
        config, clients = self.facts.config, self.facts.clients
        security, pools = config.security, config.pools
        layout, clamp, wide = layout_of(security.protection), security.clamp, security.buffer_clamp
        trained, weighted = self.encoder_projector(), config.pretrain.weights == "examples"
        size, places = vector_size(trained), buffer_places(trained)
        found = {"pretrain": Grid(clients, 0, size, 1, clamp, weighted, layout, places, wide)}
        if pools.enabled:
            places = self.pool_layout.buffers(self.pool_model(0))
            widths = (*self._pool_widths(), pools.count)
            found["cluster"] = Grid(clients, *widths, clamp, True, layout, places, wide)
        return found

    @property
    def embedding(self) -> int:
        """Width of z, the projector's output."""
        return self.facts.config.model.embedding or self.features

    def encoder(self, seed: int | None = None) -> nn.Module:
        """A fresh encoder on the device; the federation's first one when no seed is given."""
        seed = self.facts.seed("encoder") if seed is None else seed
        return self.make_encoder(seed).to(self.compute.device)

    def encoder_projector(self, seed: int | None = None) -> EncoderProjector:
        """Encoder and projector for the self-supervised phase."""
        encoder = self.encoder(None if seed is None else derive_seed(seed, "encoder"))
        top_seed = self.facts.seed("projector") if seed is None else derive_seed(seed, "projector")
        top = build_projector(self.facts.config.model, encoder, self.facts.shape, top_seed)
        return EncoderProjector(encoder, top).to(self.compute.device)

    def pool_model(self, seed: int) -> PoolModel:
        """One pool's model: encoder and top, both drawn from `seed`."""
        if self.facts.config.pools.task == "self_supervised":
            return self.encoder_projector(seed)
        head = build_head(self.features, self.facts.classes, derive_seed(seed, "head"))
        return Classifier(self.encoder(derive_seed(seed, "encoder")), head).to(self.compute.device)

    @cached_property
    def sketch(self) -> SketchForm:
        """What sketches are made of, where pools start from them."""
        facts = self.facts
        return SketchForm.of(facts.config, facts.shape, facts.classes, self.features)

    @property
    def pool_layout(self) -> PoolLayout:
        """How a pool's model is cut into vectors."""
        return PoolLayout(self.facts.config.pools.encoder)

    def objective(
        self, client: int | None, position: int = 0, difference: float | None = None
    ) -> Objective:
        """The self-supervised objective of one client; without a client, of nobody in
        particular.

        `difference`: how far clients differ, where weights follow it and it is known.
        """
        separation = None
        if self.separations is not None and client is not None:
            separation = self.separations.of(client, position)
        return build_objective(adapted(self.facts.config.objective, difference), separation)

    @property
    def pool_weights(self) -> Mapping[str, float]:
        """Weight of each term of the pools' loss."""
        supervised = self.facts.config.pools.task == "supervised"
        return {"cross_entropy": 1.0} if supervised else self.objective(0).weights

    def pretrain_task(
        self, client: int | None, position: int = 0, difference: float | None = None
    ) -> SelfSupervised:
        """What a client trains the model for in pre-training, as `objective`."""
        objective = self.objective(client, position, difference)
        return SelfSupervised(objective, self.augment, self.compute)

    def pool_task(self, client: int, position: int = 0) -> Task:
        """What a client trains its pool for."""
        pools = self.facts.config.pools
        frozen = pools.encoder == "frozen"
        if pools.task == "supervised":
            return Supervised(self.compute, frozen)
        return SelfSupervised(self.objective(client, position), self.augment, self.compute, frozen)


def _separations(facts: PublicFacts, features: int) -> SeparationPlan | None:
    """Who owns which dimensions of z; None where nothing is trained by an objective that
    separates them.
    """
    config, pools = facts.config, facts.config.pools
    trains = pools.enabled and pools.task == "self_supervised"
    if not separates(config.objective) or not (config.pretrain.trains or trains):
        return None
    embedding = config.model.embedding or features
    if config.objective.delta > 0 and embedding != features:
        raise ConfigError(
            f"distillation needs z as wide as h, {features}",
            field="model.embedding",
            value=embedding,
            remedy=f"set model.embedding = {features}, or objective.delta = 0",
        )
    return SeparationPlan.draw(config.objective, embedding, facts.clients, config.seed)


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
    if pools.start == "sketch" and pools.sketch in ("labelled", "conditional"):
        raise ConfigError(
            "there are no labels to split sketches by",
            field="pools.sketch",
            value=pools.sketch,
            remedy='set pools.sketch = "features"',
        )
