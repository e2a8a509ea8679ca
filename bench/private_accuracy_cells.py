"""The runs that the bench of private accuracy consists of: methods, levels, federations, what was
tried for the rates, and the variants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, Literal

CSV = "private_accuracy.csv"
DELTA, TUNING_SEED, MOMENTUM = 1e-5, 99, 0.9
FEATURES, EMBEDDING, HIDDEN, PAIRS = 64, 64, 64, 512
"""Projector 64-64-64: with the usual hidden width of 256 half of all parameters, and so half of the
noise's square, would be its own.
"""
OWNERS = 4
"""SSD needs somebody else: the client owns a quarter of the dimensions, as one of four would.
Owning all, its regulariser is zero.
"""
JUDGED = 5000
"""Examples that probe and kNN read, and as many that they are tested on, at most."""

LEVELS = ("ordinary", "no clipping", "no noise", "8", "2")
"""Ways to train, of which the last two are private. `no clipping` is the mechanism's sampling and
its form of the loss alone.
"""
RANDOM = "random encoder"
_RATE_OF = {"ordinary": 0, "no clipping": 0, "no noise": 1, "8": 1, "2": 2}
_NO_CLIP = 1e9


@dataclass(frozen=True)
class Method:
    """An objective, the mechanism that trains it privately, and what was tuned.

    Attributes:
        objective: as in the configuration; `labels` is cross-entropy.
        lr: learning rates of ordinary training, of ε = 8, which is used without noise as well, and
            of ε = 2.
        clip: C; of a pair, for logit.
        embedding: width of z.
        temperature: of NT-Xent.
        pairs: of random features, for uniformity.
        shown: in the main tables, or among the variants.
    """

    objective: str
    mechanism: Literal["auto", "group", "logit"]
    lr: tuple[float, float, float]
    clip: float
    embedding: int = EMBEDDING
    temperature: float = 0.5
    pairs: int = PAIRS
    shown: Literal["table", "variant"] = "table"


SPECTRAL, ALIGN, SSD = (
    "spectral contrastive, released moment",
    "align + uniformity, released mean",
    "SSD, released mean",
)
GROUPS, MASKED, LABELS = (
    "NT-Xent in groups of 4",
    "masked reconstruction, per example",
    "labels, per example",
)
FEW_PAIRS, MANY_PAIRS = f"{ALIGN}, 128 pairs", f"{ALIGN}, 2048 pairs"
LOGIT = "InfoNCE by pairs (logit), τ = 1, z of 8"
METHODS = {
    SPECTRAL: Method("spectral_contrastive", "auto", (0.1, 0.03, 0.01), 1.0),
    ALIGN: Method("align_uniform", "auto", (0.1, 0.3, 0.3), 1.0),
    SSD: Method("ssd", "auto", (0.1, 0.3, 0.3), 1.0),
    GROUPS: Method("nt_xent", "group", (0.1, 0.03, 0.1), 1.0),
    MASKED: Method("masked", "auto", (0.03, 1.5, 0.5), 0.2),
    LOGIT: Method("nt_xent", "logit", (0.1, 0.01, 0.003), 1.0, embedding=8, temperature=1.0),
    LABELS: Method("labels", "auto", (0.1, 1.0, 0.3), 1.0),
    FEW_PAIRS: Method("align_uniform", "auto", (0.1, 0.3, 0.3), 1.0, pairs=128, shown="variant"),
    MANY_PAIRS: Method("align_uniform", "auto", (0.1, 0.3, 0.3), 1.0, pairs=2048, shown="variant"),
}
BATCH, STEPS, SIDE = 250, 150, 14
"""Images are halved: a step costs a quarter, and in the few steps that are affordable the network
learns more, without privacy as well.
"""


@dataclass(frozen=True)
class Federated:
    """Client level: many clients deal the examples out among them, and the unit is a client.

    Attributes:
        objective: every client trains with it on its own examples only.
        clients: on the roster; all of them take part in all rounds.
        rounds: one epoch at every client in each.
        batch: of a client's share of 4,000 examples; in proportion with more, so that an epoch is
            as many steps.
        lr: of clients' steps.
        clips: C, the bound on the norm of a client's whole update: of ε = 8, which is used without
            noise as well, and of ε = 2.
    """

    objective: str
    clients: int
    rounds: int
    batch: int
    lr: float
    clips: tuple[float, float]


HUNDRED, THOUSAND = "NT-Xent, 100 clients", "NT-Xent, 1,000 clients"
FEDERATED = {
    HUNDRED: Federated("nt_xent", 100, 10, 20, 0.1, (0.3, 0.3)),
    THOUSAND: Federated("nt_xent", 1000, 5, 4, 0.1, (0.3, 0.3)),
}
FEDERATED_LEVELS = ("ordinary", "no noise", "8", "2")
"""A federation's ordinary training, FedAvg, differs from the mechanism's only by clipping, rounding
and noise.
"""
DATA = {"MNIST-5k": ("mnist5k", 4000), "Fashion-MNIST": ("fashion_mnist", 10_000)}
"""Source and how many examples the client trains on."""


@dataclass(frozen=True)
class Cell:
    """One run: all that it depends on. A federation's batch is a client's, and its steps
    are rounds.
    """

    data: str
    method: str
    level: str
    seed: int
    examples: int
    batch: int
    steps: int
    lr: float
    clip: float

    @classmethod
    def of(cls, data: str, method: str, level: str, seed: int, **other: Any) -> Cell:
        """With the usual size, batch, steps and rates, but for `other`."""
        lr, clip = 0.0, 0.0
        if method in FEDERATED:
            many = FEDERATED[method]
            clip = 0.0 if level == "ordinary" else many.clips[level == "2"]
            batch = many.batch * DATA[data][1] // 4000
            return replace(
                cls(data, method, level, seed, DATA[data][1], batch, many.rounds, many.lr, clip),
                **other,
            )
        if method != RANDOM:
            known = METHODS[method]
            lr, clip = (
                known.lr[_RATE_OF[level]],
                {"ordinary": 0.0, "no clipping": _NO_CLIP}.get(level, known.clip),
            )
        steps = 0 if method == RANDOM else STEPS
        return replace(
            cls(data, method, level, seed, DATA[data][1], BATCH, steps, lr, clip), **other
        )

    @property
    def key(self) -> tuple[str, ...]:
        """The setting's columns as they stand in the CSV."""
        return tuple(str(value) for value in astuple(self))

    @property
    def rate(self) -> float:
        """The share of all examples that a step draws."""
        return self.batch / self.examples


@dataclass(frozen=True)
class Variant:
    """A part of the table with something changed, at all reported seeds."""

    data: str
    method: str
    changed: str
    levels: tuple[str, ...]
    other: Mapping[str, Any]

    def cell(self, level: str, seed: int) -> Cell:
        """One of its runs."""
        return Cell.of(self.data, self.method, level, seed, **self.other)


_PRIVATE = ("8", "2")
VARIANTS = (
    *(
        Variant("MNIST-5k", name, "random features", LEVELS[1:], {})
        for name in (FEW_PAIRS, MANY_PAIRS)
    ),
    *(
        Variant("Fashion-MNIST", name, "six times the examples", _PRIVATE, {"examples": 60_000})
        for name in (GROUPS, LABELS)
    ),
    Variant("MNIST-5k", GROUPS, "four times the batch", _PRIVATE, {"batch": 4 * BATCH}),
    Variant(
        "MNIST-5k",
        GROUPS,
        "four times the steps",
        ("ordinary", "no noise", *_PRIVATE),
        {"steps": 4 * STEPS},
    ),
)
"""What would help: more data and larger batches lower the noise, more steps raise it."""
FEDERATIONS = (("MNIST-5k", HUNDRED), ("Fashion-MNIST", HUNDRED), ("Fashion-MNIST", THOUSAND))
TRIED = {
    SPECTRAL: {"8": (0.01, 0.03, 0.1, 0.3), "2": (0.01, 0.03, 0.1), "ordinary": (0.1, 0.3)},
    SSD: {"8": (0.1, 0.3, 1.0), "2": (0.1, 0.3, 1.0), "ordinary": (0.1, 0.3)},
    GROUPS: {"8": (0.01, 0.03, 0.1, 0.3), "2": (0.01, 0.03, 0.1), "ordinary": (0.1, 0.3)},
    MASKED: {"8": (0.15, 0.5, 1.5), "2": (0.05, 0.15, 0.5), "ordinary": (0.03, 0.1, 0.3, 1.0)},
    LABELS: {"8": (0.3, 1.0, 3.0), "2": (0.3, 1.0, 3.0), "ordinary": (0.1, 0.3)},
}
"""Learning rates, on one split of MNIST-5k that no reported seed has; align + uniformity
takes SSD's.
"""
TRIED_CLIPS = (0.1, 0.3, 1.0)
"""Bounds of a client's update that were tried, on the same split; a thousand clients take those of
a hundred.
"""


def main_cells(seeds: int) -> Iterator[Cell]:
    """Every method at every level, and the floor, one seed of all before the next; then the
    federations, and the variants.
    """
    for seed in range(seeds):
        for data in DATA:
            yield Cell.of(data, RANDOM, "", seed)
            yield from (
                Cell.of(data, name, level, seed)
                for name, method in METHODS.items()
                if method.shown == "table"
                for level in LEVELS
            )
    for seed in range(seeds):
        yield from (
            Cell.of(data, name, level, seed)
            for data, name in FEDERATIONS
            for level in FEDERATED_LEVELS
        )
    for seed in range(seeds):
        yield from (variant.cell(level, seed) for variant in VARIANTS for level in variant.levels)


def tuning_cells() -> Iterator[Cell]:
    """What the rates were chosen from. C was not tried further: where it clips nearly all
    gradients, only lr · C matters.
    """
    for method, levels in TRIED.items():
        for level, rates in levels.items():
            for lr in rates:
                yield Cell.of("MNIST-5k", method, level, TUNING_SEED, lr=lr)
    for level in ("8", "2"):
        yield from (
            Cell.of("MNIST-5k", HUNDRED, level, TUNING_SEED, clip=clip) for clip in TRIED_CLIPS
        )
