"""A client under client-level privacy: its whole update, and the pool it chose, leave it as one noised vector of integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from secure_fl.data.partitions import ClientData
from secure_fl.errors import PrivacyError, TrainingError
from secure_fl.federation.budget import digest_of
from secure_fl.federation.client import Client, Workbench
from secure_fl.federation.client_plan import ClientPlan
from secure_fl.federation.messages import (
    BlockUpdate,
    EncoderUpdate,
    KeepEncoder,
    PoolScore,
    PoolUpdate,
    Reply,
    Request,
    ScorePools,
    TrainEncoder,
    TrainPool,
)
from secure_fl.federation.release_box import ReleaseBox
from secure_fl.privacy.client_level import norm_of
from secure_fl.privacy.ledger import Release
from secure_fl.privacy.noise import NoiseSource
from secure_fl.privacy.units import PrivacyUnit
from secure_fl.secure_sum.grid import Blocks


class LevelClient(Client):
    """A participant whose every trace in the sum is hidden by all participants' noise together.

    **Guarantee**: of its data, `BlockUpdate.blocks` depends on one clipped, one-hot vector only, charged by `ClientLevel.event`.

    **Assumes**: the blocks are read as a sum over at least n_min clients; a single one holds one share of the noise, which protects little.

    **Not covered**: `BlockUpdate.observed` and `exploded`, the experimenter's own reading of choices, test accuracy and divergence in a simulation.
    """

    def __init__(self, data: ClientData, bench: Workbench, plan: ClientPlan, noise: NoiseSource, box: ReleaseBox) -> None:
        super().__init__(data, bench)
        self._plan, self._noise, self._box = plan, noise, box
        self._exploded: int | None = None

    def releases(self, request: Request, position: int = 0) -> tuple[Release, ...]:
        if not isinstance(request, TrainEncoder | TrainPool):
            return ()
        phase = _phase(request)
        return (
            Release(
                key=f"{phase}/{request.round}/client-{self.data.id}/{digest_of(request)}",
                phase=phase,
                round=request.round,
                purpose="update",
                unit=PrivacyUnit.CLIENT,
                subjects=(self.data.id,),
                event=self._plan.of(phase).event(1),
                basis="derived",
                also_protects=PrivacyUnit.EXAMPLE,
            ),
        )

    def handle(self, request: Request, position: int = 0) -> Reply:
        self._exploded = None
        match request:
            case TrainEncoder():
                blocks = self._noised(request, lambda: (self._encoder_change(request, position), 0))
                return BlockUpdate(blocks, exploded=self._exploded)
            case TrainPool():
                change = self._pool_change(request, position)
                update = torch.cat([change.shared, change.pooled])
                blocks = self._noised(request, lambda: (update, change.score.choice))
                return BlockUpdate(blocks, replace(change.score, losses=()), exploded=change.exploded)
            case ScorePools() | KeepEncoder():
                reply = super().handle(request, position)
                return replace(reply, losses=()) if isinstance(reply, PoolScore) else reply
            case _:
                remedy = "such an answer would show what client-level noise is to hide"
                raise PrivacyError("is not answered under client-level privacy", field="request", value=type(request).__name__, remedy=remedy)

    def _encoder_change(self, request: TrainEncoder, position: int) -> Tensor:
        """The update; zero where training diverged, since a client that stopped would show that it did. The experimenter is told."""
        self._exploded = 0
        try:
            reply = super().handle(request, position)
        except TrainingError:
            return torch.zeros_like(request.vector)
        assert isinstance(reply, EncoderUpdate)
        self._exploded = reply.exploded
        return reply.delta

    def _pool_change(self, request: TrainPool, position: int) -> PoolUpdate:
        try:
            reply = super().handle(request, position)
        except TrainingError:
            score = super().handle(ScorePools(request.pools, request.guide), position)
            assert isinstance(score, PoolScore)
            return PoolUpdate(score, torch.zeros_like(request.pools.shared), torch.zeros_like(request.pools.pooled[0]), 0.0, {}, exploded=0)
        assert isinstance(reply, PoolUpdate)
        return reply

    def _noised(self, request: TrainEncoder | TrainPool, change: Callable[[], tuple[Tensor, int]]) -> Blocks:
        """The one-hot vector of (update, pool) plus this client's noise share."""
        phase = _phase(request)
        level, bound = self._plan.of(phase), request.bound

        def make() -> dict[str, Tensor]:
            update, pool = change()
            stream = self._noise.stream(client=self.data.id, round=request.round, purpose=f"{phase}/{digest_of(request)}")
            inside = None if level.bit_noise is None else norm_of(update) <= (level.bound if bound is None else bound)
            blocks = level.noised(level.blocks(level.encode(update, bound, stream=stream), pool, inside=inside), stream)
            return {"head": blocks.head, "shared": blocks.shared, "pools": blocks.pools}

        made = self._box.once(self.releases(request)[0].key, make)
        return Blocks(made["head"], made["shared"], made["pools"])


def _phase(request: TrainEncoder | TrainPool) -> str:
    return "pretrain" if isinstance(request, TrainEncoder) else "cluster"
