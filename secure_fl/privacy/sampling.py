"""Which units take part in a step: secret coins over a public index set 0 … n − 1.

Amplification by sampling rests on coins that nobody else knows, so all of these read a
cryptographic stream, and what they return must not be logged. How many indices there are, and the
rate, are public: the rate is the wished batch over n, never the number drawn over anything. A draw
may be empty; the step is then noise alone, and is taken all the same.
"""

from __future__ import annotations

from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.noise import NoiseStream


def draw_examples(count: int, rate: float, stream: NoiseStream) -> Tensor:
    """Poisson sampling: each of `count` indices with probability `rate`, independently. int64
    `[U]`, ascending. Raises PrivacyError: the rate is not in (0, 1], or the count is negative.
    """
    check_rate(rate)
    _check_count(count)
    return stream.coins(count, rate).nonzero().flatten()


def draw_groups(count: int, size: int, rate: float, stream: NoiseStream) -> Tensor:
    """Disjoint groups of exactly `size`: a fresh uniform partition of the indices, each group with
    probability `rate`. int64 `[U, size]`.

    The count mod size last indices of the permutation are in no group of this step. The partition
    sees neither data nor model.

    Raises:
        PrivacyError: the rate is not in (0, 1], or a group has no members or more than there are.
    """
    check_rate(rate)
    if not 1 <= size <= count:
        remedy = f"use 1 to {count}"
        raise PrivacyError(f"groups of {count} indices cannot have it", "group_size", size, remedy)
    groups = count // size
    partition = stream.permutation(count)[: groups * size].view(groups, size)
    return partition[stream.coins(groups, rate)]


def check_rate(rate: float) -> None:
    """Refuse what is no sampling rate. Raises PrivacyError: it is not in (0, 1]."""
    if not 0 < rate <= 1:
        remedy = "use the expected batch over the number of examples, at most 1"
        raise PrivacyError("not a probability above 0", "sampling_rate", rate, remedy)


def _check_count(count: int) -> None:
    if count < 0:
        raise PrivacyError("negative", "examples", count, "pass the size of the public index set")
