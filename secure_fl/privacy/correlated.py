"""Correlated noise (DP-FTRL): where it would be valid. Only the rule; the mechanism itself is not built, and says so.

In DP-FTRL each round's noise partly cancels that of rounds before. That needs whoever adds it to be there in all of them. With noise in the
clients' shares, a client that drops out leaves its earlier noise uncancelled, and the sum of a later round short of the noise that was charged.

Under full participation there is little to gain. A client that may change all of T sums by C each moves a node of a binary tree over 2^l
rounds by 2^l·C. All nodes together move by C·√(T(2T − 1)), against C·√T for one independent draw a round. At an equal guarantee the tree thus
gives the last prefix sum (T a power of two: one node) 2 − 1/T times the variance of T independent draws, and prefixes with several nodes more.

Sources: Kairouz et al. 2021, arXiv 2103.00039; Choquette-Choo et al. 2023, arXiv 2306.08153.
"""

from __future__ import annotations

from secure_fl.errors import PrivacyError


def require_correlated_noise(*, adder: str, full_participation: bool) -> str:
    """Where correlated noise is valid, the sentence that its claim must carry.

    Args:
        adder: "key_holder" or "clients".
        full_participation: every client is in every round, and the chain of noise ends when one is lost.

    Raises:
        PrivacyError: clients add the noise and may be missing from a round.
    """
    if adder == "key_holder":
        return "the key holder adds the noise and sees the sums without it: the claim excludes the key holder"
    if adder == "clients" and full_participation:
        return "every client takes part in every round; a lost client ends the chain of correlated noise"
    remedy = 'noise = "independent", the key holder adds the noise, or full participation'
    raise PrivacyError("a client that drops out breaks the chain of correlated noise", field="noise", value=adder, remedy=remedy)


def correlated_noise() -> None:
    """Not built.

    Raises:
        PrivacyError: always.
    """
    remedy = 'noise = "independent"; where every client is in every round, a tree of noise costs more than it saves'
    raise PrivacyError("correlated noise is not built", field="noise", value="correlated", remedy=remedy)
