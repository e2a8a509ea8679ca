"""How noisy a pool's count may be: the odds that a pool with one member, whose mean would be that
member's update, is taken for a larger one.
"""

from __future__ import annotations

from statistics import NormalDist

from secure_fl.errors import PrivacyError


def false_pass_probability(
    deviation: float, minimum: int, *, members: int = 1, steps: int | None = None
) -> float:
    """Probability that a pool of `members` is counted as `minimum` or more, with noise of
    `deviation` members on the count.

    By the normal tail, corrected by half a grid step when `steps` grid steps a member are given;
    off by less than 3e-4 for Skellam noise of 16 or more steps' deviation.
    """
    return NormalDist().cdf(-(minimum - members - (0.5 / steps if steps else 0.0)) / deviation)


def count_noise_for(minimum: int, accepted: float = 0.05) -> float:
    """The largest deviation of a count, in members, with which a pool of 0 or 1 members passes with
    probability `accepted` at most.

    Raises:
        PrivacyError: no noise does it: the minimum is below 2, or a half or more is accepted.
    """
    if minimum < 2 or not 0 < accepted < 0.5:
        problem = "no count noise keeps a pool of one member closed"
        remedy = "minimum of 2 or more and a probability below a half, or set count_noise yourself"
        raise PrivacyError(problem, "minimum", minimum, remedy)
    return (minimum - 1) / -NormalDist().inv_cdf(accepted)
