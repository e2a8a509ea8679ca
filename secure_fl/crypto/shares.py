"""Shamir's secret sharing over the prime field of 2^521 − 1, the Mersenne prime that also underlies
NIST's curve P-521.

Source: Shamir, How to share a secret, CACM 1979. What is shared is secret (32 bytes, padded) ‖ its
length (1) ‖ SHA-256 of both (32): 65 bytes, so every field element is 66 bytes whatever the secret,
and shares that do not belong together are noticed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from secure_fl.errors import SecureSumError
from secure_fl.odds import default_threshold

PRIME = 2**521 - 1
ELEMENT_BYTES = 66
SHARE_BYTES = 1 + 2 + 2 + ELEMENT_BYTES
LONGEST_SECRET = 32
MOST_SHARES = 2**16 - 1

_VERSION = 1
_TAG = b"secure_fl/secure-sum/shamir/v1"


@dataclass(frozen=True)
class Share:
    """One point of the polynomial: `index` is public, `value` is shown to nobody but its holder."""

    index: int
    threshold: int
    value: int = field(repr=False)

    def to_bytes(self) -> bytes:
        """71 bytes: version, threshold, index, element; all big-endian."""
        head = bytes([_VERSION]) + self.threshold.to_bytes(2, "big") + self.index.to_bytes(2, "big")
        return head + self.value.to_bytes(ELEMENT_BYTES, "big")

    @classmethod
    def from_bytes(cls, data: bytes) -> Share:
        """The inverse. Raises SecureSumError: another length, version or range of a number."""
        if len(data) != SHARE_BYTES or data[0] != _VERSION:
            raise _refused(
                "not a share of this version", "share", len(data), "ask its holder for it again"
            )
        threshold, index = int.from_bytes(data[1:3], "big"), int.from_bytes(data[3:5], "big")
        value = int.from_bytes(data[5:], "big")
        if index == 0 or threshold == 0 or value >= PRIME:
            found, remedy = (index, threshold), "discard it and the holder's other shares"
            raise _refused("a share outside the field", "index and threshold", found, remedy)
        return cls(index, threshold, value)


def split(
    secret: bytes, threshold: int, count: int, *, randomness: Callable[[int], bytes] = os.urandom
) -> list[Share]:
    """Shares 1 to `count`, any `threshold` of which give the secret back.

    Guarantee: fewer than `threshold` shares are uniform and independent of the secret, whatever the
    adversary computes (and of its length, up to 32 bytes).
    Assumes: `randomness` returns uniform secret bytes.
    Not covered: a dealer who deals shares of no polynomial (the tag fails for everyone then), and
    timing: Python's integers are not constant-time.

    Raises:
        SecureSumError: a secret of 0 or more than 32 bytes, or a threshold not above half of
            the count.
    """
    return split_many([secret], threshold, count, randomness=randomness)[0]


def split_many(
    secrets: Sequence[bytes],
    threshold: int,
    count: int,
    *,
    randomness: Callable[[int], bytes] = os.urandom,
) -> list[list[Share]]:
    """`split` for each secret, all in the time of one and a half: their polynomials are evaluated
    side by side, as lanes of one long integer. Raises SecureSumError: as `split`.
    """
    for secret in secrets:
        _check_length(secret)
    check_threshold(threshold, count)
    constants = [int.from_bytes(_encode(secret), "big") for secret in secrets]
    rows = [[first, *(_element(randomness) for _ in range(threshold - 1))] for first in constants]
    # a lane holds a value that is not reduced
    width = PRIME.bit_length() + threshold * count.bit_length()
    lanes = [
        sum(value << width * lane for lane, value in enumerate(column))
        for column in zip(*rows, strict=True)
    ]
    totals = [evaluate(lanes, index) for index in range(1, count + 1)]
    lane = (1 << width) - 1
    found = list[list[Share]]()
    for shift in range(0, width * len(secrets), width):
        values = [(total >> shift & lane) % PRIME for total in totals]
        found.append([Share(index, threshold, value) for index, value in enumerate(values, 1)])
    return found


def evaluate(coefficients: Sequence[int], point: int) -> int:
    """Value of the polynomial (constant term first) at `point`, as an integer."""
    total = 0
    for coefficient in reversed(coefficients):
        total = total * point + coefficient
    return total


def check_threshold(threshold: int, count: int) -> None:
    """Refuse thresholds at which two disjoint groups of holders could each open a secret. Raises
    SecureSumError: not n/2 < threshold ≤ n, or fewer than two shares.
    """
    if not (2 <= count <= MOST_SHARES and count / 2 < threshold <= count):
        problem = "threshold must lie above half of the shares, and not above all"
        remedy = f"take {default_threshold(count)} of {count}" if count >= 2 else "two holders"
        raise _refused(problem, "threshold", {"threshold": threshold, "shares": count}, remedy)


def combine(shares: Sequence[Share]) -> bytes:
    """The secret, from at least its threshold of shares.

    With more shares than needed, a run of wrong ones (by index) is passed over: every cyclic window
    of the sorted shares is tried until the tag holds, which a set with wrong shares passes with
    probability 2^-256 for each.

    Raises:
        SecureSumError: no shares, too few, two of one index, of different thresholds, or no window
            whose tag holds.
    """
    secret = combine_many([shares])[0]
    if secret is None:
        indices = sorted(share.index for share in shares)
        remedy = "one was damaged or forged: ask more holders"
        raise _refused("shares do not fit together", "shares", indices, remedy)
    return secret


def combine_many(sets: Sequence[Sequence[Share]]) -> list[bytes | None]:
    """`combine` for each set, None where no window's tag holds; sets held by the same indices share
    one computation of Lagrange's weights.

    Raises:
        SecureSumError: no shares, too few, two of one index, or of different thresholds, at the
            first set refused.
    """
    known: dict[tuple[int, ...], list[int]] = {}
    return [_combine(shares, known) for shares in sets]


def weights_at_zero(indices: Sequence[int], prime: int) -> list[int]:
    """Lagrange's weights w, f(0) = Σ w_i·f(i) modulo `prime`, for distinct indices but 0."""
    weights = []
    for mine in indices:
        above, below = 1, 1
        for other in indices:
            if other != mine:
                above, below = above * other % prime, below * (other - mine) % prime
        weights.append(above * pow(below, -1, prime) % prime)
    return weights


def _combine(shares: Sequence[Share], known: dict[tuple[int, ...], list[int]]) -> bytes | None:
    ordered = _checked(shares)
    threshold = ordered[0].threshold
    for first in range(len(ordered) if len(ordered) > threshold else 1):
        window = (ordered + ordered)[first : first + threshold]
        indices = tuple(share.index for share in window)
        if indices not in known:
            known[indices] = weights_at_zero(indices, PRIME)
        pairs = zip(known[indices], window, strict=True)
        secret = _decode(sum(weight * share.value for weight, share in pairs) % PRIME)
        if secret is not None:
            return secret
    return None


def _checked(shares: Sequence[Share]) -> list[Share]:
    ordered = sorted(shares, key=lambda share: share.index)
    indices = [share.index for share in ordered]
    if len({share.threshold for share in ordered}) != 1:
        remedy = "collect the shares of one secret"
        raise _refused("shares of different secrets, or none", "shares", indices, remedy)
    if len(set(indices)) != len(indices):
        raise _refused("two shares of one holder", "shares", indices, "keep one share a holder")
    if any(not 0 < share.index <= MOST_SHARES or not 0 <= share.value < PRIME for share in ordered):
        raise _refused("a share outside the field", "shares", indices, "discard it")
    if len(ordered) < max(2, ordered[0].threshold):
        found = {"shares": len(ordered), "threshold": ordered[0].threshold}
        raise _refused("too few shares", "shares", found, "wait for more holders")
    return ordered


def _check_length(secret: bytes) -> None:
    if not 1 <= len(secret) <= LONGEST_SECRET:
        remedy = "share a key, not the data under it"
        found = f"{len(secret)} bytes"
        raise _refused("a secret has 1 to 32 bytes", "secret", found, remedy)


def _encode(secret: bytes) -> bytes:
    body = secret.ljust(LONGEST_SECRET, b"\0") + bytes([len(secret)])
    return body + hashlib.sha256(_TAG + body).digest()


def _decode(value: int) -> bytes | None:
    if value.bit_length() > 8 * (ELEMENT_BYTES - 1):
        return None
    encoded = value.to_bytes(ELEMENT_BYTES - 1, "big")
    length = encoded[LONGEST_SECRET]
    secret = encoded[:length]
    if not 1 <= length <= LONGEST_SECRET or not hmac.compare_digest(_encode(secret), encoded):
        return None
    return secret


def _element(randomness: Callable[[int], bytes]) -> int:
    """Uniform below the prime: 521 bits, drawn again at 2^521 − 1."""
    while True:
        value = int.from_bytes(randomness(ELEMENT_BYTES), "big") & PRIME
        if value != PRIME:
            return value


def _refused(problem: str, name: str, value: object, remedy: str) -> SecureSumError:
    return SecureSumError(problem, f"secret sharing, {name}", value, remedy)
