"""What server and clients say to each other. Vectors are flat float32, the form the secure sum works on."""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass

from torch import Tensor

from secure_fl.pools.pool_set import PoolSet
from secure_fl.secure_sum.grid import Blocks


@dataclass(frozen=True)
class TrainEncoder:
    """Pre-train from this encoder and projector `[P]`. `bound`: client-level privacy's norm bound of the round, where it adapts."""

    round: int
    vector: Tensor = field(repr=False)
    bound: float | None = None


@dataclass(frozen=True)
class EncoderUpdate:
    """Change of the encoder and projector, and how much it weighs.

    `exploded`: the step at which the loss had left its scale, if it did; 0 where it ended in an update that is not finite, and zeros are sent.
    """

    delta: Tensor = field(repr=False)
    weight: float
    terms: dict[str, float]
    exploded: int | None = None


@dataclass(frozen=True)
class KeepEncoder:
    """Keep this pre-trained encoder `[E]`: it is the encoder of frozen pools, and makes sketches of embeddings."""

    vector: Tensor = field(repr=False)


@dataclass(frozen=True)
class Kept:
    """Acknowledges `KeepEncoder`."""


@dataclass(frozen=True)
class GiveCentre:
    """Released sketches only: ask for the client's noised mean example, to be averaged into the centre."""


@dataclass(frozen=True)
class CentreShare:
    """A noised mean of examples at unit length `[F]`."""

    mean: Tensor = field(repr=False)


@dataclass(frozen=True)
class GiveSketch:
    """Ask for the sketch, to be summed with the others; released ones are centred by `centre` `[F]`."""

    centre: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class SketchUpdate:
    """A sketch, its squared length and a one, each a summand; all zero from a client that cannot make the sketch asked for."""

    sketch: Tensor = field(repr=False)
    square: float
    count: int


@dataclass(frozen=True)
class VoteCentre:
    """Centre the sketch by `mean` `[S]` and join the nearest of `centres` `[starts, K, S]`."""

    mean: Tensor = field(repr=False)
    centres: Tensor = field(repr=False)


@dataclass(frozen=True)
class CentreVote:
    """One-hot blocks `[starts, K, S + 2]`: the centred sketch, a one and its squared distance in the chosen block, else zeros."""

    blocks: Tensor = field(repr=False)


@dataclass(frozen=True)
class Guide:
    """The found groups: the global mean sketch `[S]` and one centre a pool `[K, S]`."""

    mean: Tensor = field(repr=False)
    centres: Tensor = field(repr=False)


@dataclass(frozen=True)
class ScorePools:
    """Choose among these pools and report how the chosen one does on test data; no training."""

    pools: PoolSet
    guide: Guide | None = None


@dataclass(frozen=True)
class PoolScore:
    """The choice, the score of every pool on the client's own examples (none under privacy), and the chosen pool's test score.

    Under a secure sum it is the experimenter's: a client that takes part sends none of it.
    """

    choice: int
    losses: tuple[float, ...]
    test_loss: float
    test_accuracy: float | None
    test_balanced: float | None = None
    """Accuracy with every class of the test set counted alike."""


@dataclass(frozen=True)
class TrainPool:
    """Choose a pool and train it. With `forced`, the pool is the guide's nearest centre. A request holds nobody's choice."""

    round: int
    pools: PoolSet
    guide: Guide | None = None
    forced: bool = False
    bound: float | None = None


@dataclass(frozen=True)
class PoolUpdate:
    """Change of the chosen pool; `weight` is 0 for a client without labels, whose changes are zero. `exploded`: as in `EncoderUpdate`."""

    score: PoolScore
    shared: Tensor = field(repr=False)
    pooled: Tensor = field(repr=False)
    weight: float
    terms: dict[str, float]
    exploded: int | None = None


@dataclass(frozen=True)
class BlockUpdate:
    """What goes into a sum of integers: an update, one-hot over the pools; under client-level privacy with a share of the noise in every field.

    `observed`, `terms`, `exploded` and `cut` (the share of an update's values that the clamp cut) are no part of the protocol: a simulation's
    experimenter reads choices, test scores and losses off the clients. `blocks` is None for the server's phases, which see the sum only.
    """

    blocks: Blocks | None
    observed: PoolScore | None = None
    terms: dict[str, float] = field(default_factory=dict)
    exploded: int | None = None
    cut: float = 0.0


@dataclass(frozen=True)
class TrainCandidate:
    """Train a candidate from row 0 of `pools` and send it back whole. HypCluster's start only: it shows a client's model."""

    pools: PoolSet


@dataclass(frozen=True)
class Candidate:
    """A client's own model's pooled part `[P]`; None from a client that has nothing to train on."""

    pooled: Tensor | None = field(repr=False)


Request = TrainEncoder | KeepEncoder | GiveCentre | GiveSketch | VoteCentre | ScorePools | TrainPool | TrainCandidate
Reply = EncoderUpdate | Kept | CentreShare | SketchUpdate | CentreVote | PoolScore | PoolUpdate | BlockUpdate | Candidate


def payload_bytes(message: object) -> int:
    """Bytes of a message's tensors and numbers, headers not counted."""
    if isinstance(message, Tensor):
        return message.nbytes
    if isinstance(message, int | float):
        return 8
    if isinstance(message, dict):
        return sum(payload_bytes(value) for value in message.values())
    if isinstance(message, tuple):
        return sum(payload_bytes(value) for value in message)
    if is_dataclass(message):
        return sum(payload_bytes(value) for value in vars(message).values())
    return 0
