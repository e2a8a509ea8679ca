"""What was found in other systems and must not be found here: seeds folded to 32 bits, one float as
a mask, secrets seeded by rank.
"""

from __future__ import annotations

import ast
import random
from pathlib import Path

import numpy as np
import pytest
from secure_sum.whole_blocks import mask

import secure_fl
from secure_fl.crypto.key_streams import WORDS, expand
from secure_fl.crypto.shares import split
from secure_fl.he.parameters import BATCHING_PRIME
from secure_fl.secure_sum.masks import UsedSeeds, self_seeds

KEY = bytes(range(32))
MODULI = [WORDS, BATCHING_PRIME]


def folded(key: bytes) -> int:
    """How Flower's SecAgg+ (1.42) makes a seed for NumPy's Mersenne Twister: the XOR of a key's
    32-bit words.
    """
    return int(np.bitwise_xor.reduce(np.frombuffer(key, np.uint32)))


@pytest.mark.parametrize("modulus", MODULI)
def test_keys_that_fold_to_one_32_bit_seed_make_different_masks(modulus: int) -> None:
    """One bit flipped in two words of the key: folded seeds are equal, our streams
    share nothing.
    """
    for bit in range(32):
        pair = (
            int.from_bytes(KEY, "little") ^ (1 << bit) ^ (1 << (bit + 32 * (1 + bit % 7)))
        ).to_bytes(32, "little")
        assert folded(pair) == folded(KEY)
        assert not (expand(pair, 1000, modulus) == expand(KEY, 1000, modulus)).any()


@pytest.mark.parametrize("modulus", MODULI)
def test_every_bit_of_the_key_matters(modulus: int) -> None:
    first = {
        expand(
            (int.from_bytes(KEY, "little") ^ (1 << bit)).to_bytes(32, "little"), 2, modulus
        ).tobytes()
        for bit in range(256)
    }
    assert len(first | {expand(KEY, 2, modulus).tobytes()}) == 257


@pytest.mark.parametrize("modulus", MODULI)
def test_the_top_values_of_the_range_occur(modulus: int) -> None:
    """`randint(0, num_range − 1)` elsewhere never gives the last ones; every one of the 1024
    highest classes is met here.
    """
    classes = np.unique(
        (expand(KEY, 60_000, modulus).astype(np.float64) / modulus * 1024).astype(int).clip(0, 1023)
    )
    assert len(classes) == 1024


@pytest.mark.parametrize("modulus", MODULI)
def test_a_mask_is_no_single_number(modulus: int) -> None:
    """One number added to all coordinates leaves their differences in the open; here no difference
    of an upload is one of the update.
    """
    update = np.arange(2000, dtype=np.uint64)
    upload = update.copy()
    mask(
        upload,
        own=0,
        self_seed=self_seeds(1)[0],
        pairs={1: self_seeds(1)[0]},
        modulus=modulus,
        used=UsedSeeds(),
    )
    masks = (upload.astype(object) - update.astype(object)) % modulus
    assert len(set(masks.tolist())) == 2000
    assert not (np.diff(upload) == 1).any()


def test_secrets_come_from_no_seed_that_anybody_could_repeat() -> None:
    """Two processes of one rank, both seeded alike: every secret differs."""

    def secrets() -> list[bytes]:
        random.seed(0)
        np.random.seed(0)
        return [*self_seeds(3), *(share.to_bytes() for share in split(KEY, 2, 3))]

    assert not set(secrets()) & set(secrets())


HOUSE = Path(secure_fl.__file__).parent
ROOMS = [
    path for room in ("crypto", "he", "secure_sum") for path in sorted((HOUSE / room).glob("*.py"))
]


DRAWS = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal",
    "bernoulli", "binomial", "multinomial", "poisson", "dropout", "distributions", "Generator",
    "manual_seed", "default_generator", "random_", "uniform_", "normal_", "bernoulli_",
    "exponential_", "geometric_", "cauchy_", "log_normal_",
}  # fmt: skip
"""Names under which numpy and torch draw from statistical generators."""


def generators(source: str) -> list[str]:
    """Names in a source under which it could reach a statistical generator."""
    found = list[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if "random" in name.name.split(".")]
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = [*node.module.split("."), *(name.name for name in node.names)]
            found += [name for name in whole if name == "random" or name in DRAWS]
        if isinstance(node, ast.Attribute):
            base = node.value.id if isinstance(node.value, ast.Name) else ""
            of_numbers = node.attr == "random" and base in {"np", "numpy", "torch"}
            found += [node.attr] if of_numbers or node.attr in DRAWS else []
    return found


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_no_statistical_generator_in_these_rooms(path: Path) -> None:
    """Neither `random` nor `numpy.random` nor torch's, anywhere in these rooms: randomness is the
    operating system's or AES'.
    """
    assert generators(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "planted",
    [
        "import random",
        "import numpy.random as r",
        "from random import randbytes",
        "from numpy import random",
        "from numpy.random import default_rng",
        "from torch import randint",
        "np.random.default_rng()",
        "torch.rand(3)",
        "torch.random.manual_seed(0)",
        "x.uniform_()",
    ],
)
def test_a_statistical_generator_would_be_seen(planted: str) -> None:
    assert generators(planted)
