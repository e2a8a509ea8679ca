"""Requests and replies of the shapes that a run sends, holding zeros."""

from __future__ import annotations

import torch

from secure_fl.federation.block_replies import in_blocks
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.messages import (
    BlockUpdate,
    CentreShare,
    CentreVote,
    EncoderUpdate,
    GiveCentre,
    Guide,
    PoolScore,
    PoolUpdate,
    Reply,
    ScorePools,
    TrainEncoder,
    TrainPool,
    VoteCentre,
    payload_bytes,
)
from secure_fl.models.state import to_vector
from secure_fl.pools.pool_set import PoolSet


class SampleMessages:
    """Requests and replies of the shapes that a run sends, holding zeros."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint, config = blueprint, blueprint.config
        self.encoder = to_vector(blueprint.encoder())
        self.vector = (
            to_vector(blueprint.encoder_projector())
            if config.pretrain.mode in ("federated", "centralized")
            else torch.empty(0)
        )
        shared, pooled = (
            blueprint.layout.parts(blueprint.pool_model(0))
            if config.pools.enabled
            else (torch.empty(0), torch.empty(0))
        )
        self.pools = PoolSet(shared, pooled.repeat(max(1, config.pools.count), 1))
        self.largest_upload = 0
        self.fields = len(self.vector) + len(self.encoder) + self.pools.pooled.numel() + len(shared)
        width = (
            blueprint.sketch_width if config.pools.enabled and config.pools.start == "sketch" else 0
        )
        self._guide = (
            Guide(torch.zeros(width), torch.zeros(config.pools.count, width)) if width else None
        )
        losses = tuple(0.0 for _ in range(config.pools.count))
        self._score = PoolScore(0, () if config.privacy.unit != "none" else losses, 0.0, 0.0, 0.0)

    def train_encoder(self) -> tuple[TrainEncoder, Reply]:
        terms = (
            dict.fromkeys(self.blueprint.objective(0).weights, 0.0)
            if self.blueprint.config.privacy.unit == "none"
            else {}
        )
        return TrainEncoder(0, self.vector), self._answer(
            EncoderUpdate(torch.zeros(len(self.vector)), 1.0, terms), "pretrain"
        )

    def train_pool(self) -> tuple[TrainPool, Reply]:
        terms = (
            dict.fromkeys(self.blueprint.pool_weights, 0.0)
            if self.blueprint.config.privacy.unit == "none"
            else {}
        )
        shared, pooled = (
            torch.zeros(len(self.pools.shared)),
            torch.zeros(self.pools.pooled.shape[1]),
        )
        reply = PoolUpdate(self._score, shared, pooled, 1.0, terms)
        return TrainPool(0, self.pools, self._guide), self._answer(reply, "cluster")

    def score(self) -> tuple[ScorePools, Reply]:
        return ScorePools(self.pools, self._guide), self._score

    def vote(self) -> tuple[VoteCentre, Reply]:
        config, width = self.blueprint.config.pools, self.blueprint.sketch_width
        centres = torch.zeros(config.sketch_starts, config.count, width)
        return VoteCentre(torch.zeros(width), centres), self._answer(
            CentreVote(torch.zeros(*centres.shape[:2], width + 2)), "votes"
        )

    def centre(self) -> tuple[GiveCentre, Reply]:
        return GiveCentre(), self._answer(
            CentreShare(torch.zeros(self.blueprint.sketch.inputs)), "centre"
        )

    def _answer(self, reply: Reply, phase: str) -> Reply:
        plan = (
            self.blueprint.client_plan if self.blueprint.config.privacy.unit == "client" else None
        )
        if plan is not None and phase in plan.by_phase():
            level = plan.of(phase)
            inside = None if level.bit_noise is None else False
            reply = BlockUpdate(
                level.blocks(
                    torch.zeros(level.shared + level.pooled, dtype=torch.int64), 0, inside=inside
                )
            )
        made = in_blocks(reply, self.blueprint)
        if isinstance(made, BlockUpdate) and made.blocks is not None:
            self.largest_upload = max(self.largest_upload, payload_bytes(made.blocks))
        return made
