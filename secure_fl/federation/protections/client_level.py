"""A client under client-level privacy. Its whole update, and the pool it chose, leave it as one
noised vector of integers.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from secure_fl.errors import TrainingError
from secure_fl.federation.asks import (
    Ask,
    PoolScore,
    ScorePools,
    SumFeatures,
    SumMoments,
    TrainEncoder,
    Training,
    TrainPool,
    step_of,
)
from secure_fl.federation.factory.client_plan import ClientPlan
from secure_fl.federation.factory.updates import Updates
from secure_fl.federation.local.local import Local
from secure_fl.federation.observe import Seen
from secure_fl.federation.protections.open import Open
from secure_fl.federation.protections.protection import Protection, Trained
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.budget import digest_of
from secure_fl.federation.steps.step import Answer
from secure_fl.privacy.adjacency import PrivacyUnit
from secure_fl.privacy.client_level import norm_of
from secure_fl.privacy.ledger import Release
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.grid import Blocks


class ClientLevel(Protection):
    """A participant whose every trace in the sum is hidden by all participants' noise together.

    **Guarantee**: of its data, what it sends depends on one clipped, one-hot vector only, charged
    by the mechanism's own event.

    **Assumes**: the blocks are read as a sum over at least n_min clients; a single one holds one
    share of the noise, which protects little.

    **Not covered**: `Answer.seen`, the experimenter's own reading of choices, test accuracy and
    divergence in a simulation.
    """

    answered = Training
    refusal = (
        "is not answered under client-level privacy",
        "such an answer would show what client-level noise is to hide",
    )

    def __init__(self, local: Local, plan: ClientPlan, noise: NoiseSource, box: ReleaseBox) -> None:
        self._client, self._plan, self._noise, self._box = local.data.id, plan, noise, box
        self._open = Open(local)

    def releases(self, ask: Ask, position: int) -> tuple[Release, ...]:
        if not isinstance(ask, Training):
            return ()
        phase = step_of(ask)
        return (
            Release(
                key=f"{phase}/{ask.round}/client-{self._client}/{digest_of(ask)}",
                phase=phase,
                round=ask.round,
                purpose="update",
                unit=PrivacyUnit.CLIENT,
                subjects=(self._client,),
                event=self._plan.of(phase).event(1),
                basis="derived",
                also_protects=PrivacyUnit.EXAMPLE,
            ),
        )

    def train_encoder(self, ask: TrainEncoder, position: int) -> Trained:
        """The client's update, before it is clipped and noised. Zero where training diverged, since
        a client that stopped would show that it did. The experimenter is told.
        """
        try:
            return self._open.train_encoder(ask, position)
        except TrainingError:
            return Trained(torch.zeros_like(ask.vector), exploded=0)

    def sum_examples(self, ask: SumFeatures | SumMoments) -> Tensor:
        self.check(ask)
        raise NotImplementedError

    def choose(self, ask: ScorePools | TrainPool, position: int) -> PoolScore:
        return replace(self._open.choose(ask, position), losses=())

    def train_pool(self, ask: TrainPool, choice: int, position: int) -> Trained:
        """The client's update of its pool; zero where training diverged, as in `train_encoder`."""
        try:
            return self._open.train_pool(ask, choice, position)
        except TrainingError:
            pools = ask.pools
            nothing = torch.zeros_like(pools.pooled[0]), torch.zeros_like(pools.shared)
            return Trained(*nothing, exploded=0)

    def sent(
        self, ask: Training, updates: Updates, trained: Trained, score: PoolScore | None = None
    ) -> Answer:
        """The one-hot vector of (update, pool) plus this client's noise share. Stored before it is
        sent.
        """
        phase, level = step_of(ask), self._plan.of(step_of(ask))
        choice, change = 0 if score is None else score.choice, trained.change

        def make() -> dict[str, Tensor]:
            purpose = f"{phase}/{digest_of(ask)}"
            stream = self._noise.stream(client=self._client, round=ask.round, purpose=purpose)
            bound, inside = level.bound if ask.bound is None else ask.bound, None
            if level.bit_noise is not None:
                inside = norm_of(change) <= bound
            integers = level.encode(change, ask.bound, stream=stream)
            blocks = level.noised(level.blocks(integers, choice, inside=inside), stream)
            return {"head": blocks.head, "shared": blocks.shared, "pools": blocks.pools}

        made = self._box.once(self.releases(ask, 0)[0].key, make)
        blocks = Blocks(made["head"], made["shared"], made["pools"])
        return Answer(blocks, Seen(exploded=trained.exploded, score=score))
