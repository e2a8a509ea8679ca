"""Client level: a federation pre-trains by FedAvg, and each client's whole update is hidden by all
clients' integer noise together.

Examples are dealt out at random, as many to each client. A round is that of a run: the public
model, one epoch at every client, the update clipped, rounded and noised by `ClientLevel`, the sum
opened, the mean added. The plan, with its noise, is the one that a run with this budget makes.

Sums are plain: masks and encryption give the server the same integers, bit for bit, so accuracy
does not depend on them. What does is who may be claimed against: under plain sums the server sees
single uploads, and ε here is that of the opened sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt

import torch
from torch import Tensor, nn

from bench.private_accuracy_cells import DELTA, FEDERATED, MOMENTUM, Cell
from secure_fl.config import FederationConfig, ObjectiveConfig, ViewsConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import build_views
from secure_fl.federation.factory.client_plan import plan_clients
from secure_fl.models.state import load_vector, to_vector
from secure_fl.objectives.build import build_objective
from secure_fl.privacy.client_level import Blocks, ClientLevel, norm_of
from secure_fl.privacy.noise import NoiseSource
from secure_fl.seeds import derive_seed
from secure_fl.training.device import Compute
from secure_fl.training.fit import LocalSpec
from secure_fl.training.tasks import SelfSupervised


def level_of(cell: Cell, parameters: int) -> ClientLevel | None:
    """The mechanism of a cell; None for ordinary training. Without noise it clips and rounds on the
    grid that a noise of 1 gives.
    """
    if cell.level == "ordinary":
        return None
    budget = {"noise": 1.0} if cell.level == "no noise" else {"epsilon": float(cell.level)}
    privacy = {"unit": "client", "delta": DELTA, "clip": cell.clip, **budget}
    config = FederationConfig.model_validate(
        {"privacy": privacy, "pretrain": {"rounds": cell.steps}, "pools": {"enabled": False}}
    )
    return plan_clients(config, FEDERATED[cell.method].clients, parameters, (0, 0)).pretrain


def noise_of_mean(level: ClientLevel) -> float:
    """Deviation of the noise on one coordinate of the mean update, when the whole roster's noise is
    in it.
    """
    return level.noise_multiplier * level.bound * sqrt(level.roster / level.honest) / level.roster


def federated(model: nn.Module, cell: Cell, train: Dataset) -> dict[str, object]:
    """Pre-train `model` and say of the first and of the last round what clipping and noise
    met there.
    """
    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "deal"))
    order = torch.randperm(len(train), generator=generator)
    shares = [train.take(part) for part in order.tensor_split(FEDERATED[cell.method].clients)]
    vector = to_vector(model)
    level = level_of(cell, len(vector))
    source = NoiseSource.for_tests(derive_seed(cell.seed, "noise", *cell.key))
    found: dict[str, object] = {}
    model.train()
    for number in range(cell.steps):
        updates = [
            _update(model, vector, share, cell, derive_seed(cell.seed, number, i))
            for i, share in enumerate(shares)
        ]
        if level is None:
            vector = vector + torch.stack(updates).double().mean(0).float()
            continue
        total, clear = _summed(level, cell, updates, source, number)
        means = level.open_pools(total, level.open_head(total.head, len(shares)))[1]
        vector = vector + means[0].float()
        if number in (0, cell.steps - 1):
            norms = torch.tensor([norm_of(update) for update in updates])
            when = "first" if number == 0 else "last"
            found |= _seen(level, cell, clear, norms, when)
    load_vector(model, vector)
    return found


def _summed(
    level: ClientLevel, cell: Cell, updates: Sequence[Tensor], source: NoiseSource, number: int
) -> tuple[Blocks, Tensor]:
    """The sum of all clients' blocks, noised where the cell says so, and the sum without noise."""
    total, clear = level.absent(), torch.zeros(len(updates[0]), dtype=torch.int64)
    for i, update in enumerate(updates):
        mine = level.blocks(level.encode(update), 0)
        clear += mine.pools[0]
        if cell.level != "no noise":
            mine = level.noised(mine, source.stream(client=i, round=number, purpose="bench"))
        total = total + mine
    return total, clear


def _update(model: nn.Module, vector: Tensor, share: Dataset, cell: Cell, seed: int) -> Tensor:
    """One client's change of the public model; zero where its training diverged."""
    load_vector(model, vector)
    objective = build_objective(
        ObjectiveConfig(name=FEDERATED[cell.method].objective, form="normalized", temperature=0.5),
        None,
    )
    task = SelfSupervised(
        objective,
        build_views(ViewsConfig(), tuple(share.x.shape[1:])),
        Compute(torch.device("cpu")),
    )
    task.fit(model, share, LocalSpec(1, cell.batch, cell.lr, MOMENTUM, 0.0), seed)
    return to_vector(model) - vector


def _seen(
    level: ClientLevel, cell: Cell, clear: Tensor, norms: Tensor, when: str
) -> dict[str, object]:
    """Median norm of updates, share that C clips, and the mean clipped update's length over that of
    its noise.
    """
    noise = 0.0 if cell.level == "no noise" else noise_of_mean(level)
    signal = float(clear.double().norm()) * level.bound / level.levels / level.roster
    return {
        "noise": 0.0 if noise == 0 else round(level.noise_multiplier, 4),
        f"norm_{when}": round(float(norms.median()), 4),
        f"clipped_{when}": round(float(((norms > level.bound) & (norms < inf)).double().mean()), 4),
        f"signal_{when}": round(signal / (noise * sqrt(len(clear))), 4) if noise else "",
    }
