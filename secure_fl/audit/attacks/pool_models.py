"""Which pool a client uses, guessed from a finished run's models and what is known of the client's
kind of data: its test examples, which come from the same law as what it trains on.

Nothing that a run claims forbids this: models say what clients of a kind have in common, and
whoever knows the kind needs no leak. The baseline says how far one gets without any model: clients
are grouped by their mean example, and groups are given the pools' numbers in the best way there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment

from secure_fl.audit.subject import Subject
from secure_fl.data.pooled import pooled_values
from secure_fl.finished.artifacts import load_card, load_pools
from secure_fl.seeds import derive_seed


@dataclass(frozen=True)
class FromModels:
    """Right guesses over all clients, with the released pools and without them."""

    with_models: int
    without: int
    clients: int


def from_models(subject: Subject, seed: int) -> FromModels | None:
    """Guesses about every client whose pool the record tells. None where there is no finished run
    with several pools, or the record tells nobody's.
    """
    config, folder = subject.config, subject.folder
    if folder is None or subject.summary is None or config.pools.count < 2:
        return None
    told = {int(client): pool for client, pool in load_card(folder).choices.items()}
    if not config.pools.enabled or not told:
        return None
    factory, clients = subject.factory, [subject.clients[each] for each in told]
    own = None if subject.encoder is None else factory.make_encoder(0)
    models, truth, right = load_pools(folder, own)[0], np.array(list(told.values())), 0
    for client, pool in zip(clients, truth, strict=True):
        task, at = factory.pool_task(client.id, client.id), factory.facts.seed("pool guess")
        moved = [model.to(factory.compute.device) for model in models]
        losses = [task.score(model, client.test, at).loss for model in moved]
        right += int(np.nanargmin(losses)) == pool
    means = np.stack([pooled_values(each.test.x).double().mean(0).numpy() for each in clients])
    number = derive_seed(seed, "baseline") % (1 << 31)
    groups = kmeans2(means, config.pools.count, minit="++", seed=number, missing="warn")[1]
    table = np.zeros((config.pools.count, config.pools.count))
    np.add.at(table, (groups, truth), 1)
    best = int(table[linear_sum_assignment(table, maximize=True)].sum())
    return FromModels(int(right), best, len(clients))
