"""Membership by the models that a finished run has in its folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from secure_fl.audit.attacks.membership_figures import LOSS, Looked, log_odds
from secure_fl.audit.attacks.rates import Scores, area, true_positives
from secure_fl.audit.outcome import Figure
from secure_fl.audit.subject import Subject
from secure_fl.data.dataset import Dataset
from secure_fl.data.joining import join
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.finished.artifacts import load_encoder, load_pools
from secure_fl.seeds import derive_seed, generator_of

RATE = 0.01


def released_figures(subject: Subject, seed: int, most: int) -> tuple[Figure, ...]:
    """What the released models say of the run's training examples beside its test examples, at most
    so many of each; and what an untrained encoder says of the same. Empty before a run has ended.
    """
    if subject.folder is None or not RunFolder.open(subject.folder).summary.is_file():
        return ()
    factory, clients = subject.factory, subject.clients
    members = _some([client.train for client in clients], most, seed)
    known = {row.numpy().tobytes() for client in clients for row in client.train.x}
    others = _some([_unknown(client.test, known) for client in clients], most, seed)
    if min(len(members), len(others)) < 2:
        return ()
    both = join([members, others], "candidates")
    looked = Looked(both, factory.augment, factory.compute, derive_seed(seed, "released"))
    own = None if subject.encoder is None else factory.make_encoder(0)
    kinds = {
        "an untrained encoder": [factory.encoder()],
        "the released encoder": [load_encoder(subject.folder, own)],
    }
    if subject.config.pools.enabled:
        kinds["the released pools"] = list(load_pools(subject.folder, own)[0])
    setting = "defence on" if subject.config.privacy.unit != "none" else ""
    return tuple(
        figure
        for name, models in kinds.items()
        for figure in _figures(looked, models, len(members), name, setting)
    )


def _figures(
    looked: Looked, models: Sequence[nn.Module], members: int, name: str, setting: str
) -> list[Figure]:
    """Of several models an attacker takes the one that knows an example best."""
    found = [looked.figures(model) for model in models]
    made = list[Figure]()
    for attacked in found[0]:
        rows = [log_odds(each[attacked]) if attacked == LOSS else each[attacked] for each in found]
        scores: Scores = np.max(rows, axis=0)
        inside, outside = scores[:members], scores[members:]
        title = f"{attacked} by {name}, training against test examples"
        made.append(Figure(f"AUC: {title}", *area(inside, outside), 0.5, setting=setting))
        if RATE * len(outside) >= 1:
            rate = true_positives(inside, outside, RATE)
            title = f"true positives at {RATE:.1%} false ones: {title}"
            made.append(Figure(title, *rate, RATE, setting=setting))
    return made


def _some(parts: Sequence[Dataset], most: int, seed: int) -> Dataset:
    """At most so many examples of all clients together, each once."""
    joined = join(parts, "examples")
    _, first = np.unique(joined.x.flatten(1).numpy(), axis=0, return_index=True)
    order = torch.randperm(len(first), generator=generator_of(seed, "candidates"))[:most]
    return joined.take(torch.from_numpy(np.sort(first))[order])


def _unknown(test: Dataset, known: set[bytes]) -> Dataset:
    """Test examples that are no client's training examples."""
    fresh = [row.numpy().tobytes() not in known for row in test.x]
    return test.take(torch.tensor(fresh, dtype=torch.bool))
