"""The game that an attack on an update plays: which of so many candidates did the client train on?

A coin from the operating system says which candidate goes into the client's examples, the others
stay out of everybody's. The attacker is given all of them, and what the run shows of the client's
update; he names one. Where nothing is shown of the example, he is right once in as many cases as
there are candidates, whatever else he knows; what is charged for may show as much as its ε allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from scipy.special import betainc

from secure_fl.audit.attacks.rates import allowed_guesses, share
from secure_fl.audit.outcome import Figure

FALSE_ALARM = 1e-3
"""Of a verdict: 3σ to one side are 1.35e-3."""


@dataclass(frozen=True)
class Guesses:
    """How often an attack named the right candidate.

    Attributes:
        right: cases in which it did.
        cases: that were played.
        candidates: of each case.
        epsilon, delta: that what was shown is charged for, at replace-one; none where it may show
            nothing.
    """

    right: int
    cases: int
    candidates: int
    epsilon: float = 0.0
    delta: float = 0.0

    @property
    def rate(self) -> float:
        """Share of the cases that were right; 0 of none."""
        return self.right / self.cases if self.cases else 0.0

    @property
    def chance(self) -> float:
        """What somebody reaches who saw nothing."""
        return 1 / self.candidates

    @property
    def claimed(self) -> float:
        """The largest rate that the claim allows: chance, and more as ε grows."""
        return allowed_guesses(self.epsilon, self.delta, self.candidates)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % around the rate, exactly; all there may be where no case was played."""
        return share(self.right, self.cases)[1:] if self.cases else (0.0, 1.0)

    @property
    def by_claim(self) -> float:
        """How likely so many are right, or more, at the claimed rate: the binomial's exact tail."""
        if self.right == 0:
            return 1.0
        return float(betainc(self.right, self.cases - self.right + 1, self.claimed))

    def allowed(self, false_alarm: float = FALSE_ALARM) -> float:
        """The largest rate that is not called above the claim."""
        tried = (replace(self, right=each) for each in range(self.cases + 1))
        right = next(
            (each.right for each in tried if each.above_claim(false_alarm)), self.cases + 1
        )
        return (right - 1) / self.cases

    def above_claim(self, false_alarm: float = FALSE_ALARM) -> bool:
        """Whether so many would be right with at most this probability, were the claim true."""
        return self.by_claim <= false_alarm

    def figure(self, name: str, setting: str, limit: float | None = None) -> Figure:
        """The rate as a figure, with how many cases it is of."""
        low, high = self.interval
        named = f"{name} ({self.cases} cases)"
        return Figure(named, self.rate, low, high, self.chance, limit, setting)
