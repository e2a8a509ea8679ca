"""What several checks of noise say in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from secure_fl.audit.bounds.result import Bound
from secure_fl.audit.check import Check
from secure_fl.audit.checks.noise_law import Measured
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject

SHARE = 1e-5
"""The probability of a false alarm of one test; a check has at most a hundred of them."""


def of_claims(
    check: Check, subject: Subject, said: str, figures: Sequence[Figure], *, broken: bool
) -> Outcome:
    """What a check of a run's claims says in which no coin decides."""
    unit = subject.config.privacy.unit
    return Outcome(
        check.name,
        check.tried,
        "everybody whom a claim is about",
        "example" if unit == "none" else unit,
        "broken" if broken else "held",
        said,
        figures=tuple(figures),
    )


@dataclass
class Findings:
    """What a check has seen so far.

    Attributes:
        against: what speaks against the claim, each in a few words.
        tests: how many tests there were in which a coin decides.
        figures, bounds: for the outcome.
    """

    against: list[str] = field(default_factory=list)
    tests: int = 0
    figures: list[Figure] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)

    def exact(self, holds: bool, otherwise: str) -> None:
        """Take in what no coin decides."""
        if not holds and otherwise not in self.against:
            self.against.append(otherwise)

    def test(self, probability: float, otherwise: str, tests: int = 1) -> None:
        """Take in a test: the probability of what was seen where the claim is true."""
        self.tests += tests
        self.exact(probability > SHARE * tests, otherwise)

    def noise(self, seen: Measured) -> None:
        """Take in noise that must not be narrower than claimed."""
        self.figures.append(seen.figure)
        self.test(seen.p_narrow, f"{seen.name}: {seen.ratio:.3g} of the claimed variance")

    def game(self, bounds: Sequence[Bound], claimed: float, confidence: float, where: str) -> None:
        """Take in all bounds of one game; the claim is written beside each, and where it was."""
        for bound in bounds:
            told, method = {**bound.details, "claimed": claimed}, f"{bound.method}, {where}"
            self.bounds.append(replace(bound, method=method, details=told))
            self.exact(
                not bound.refutes(claimed),
                f"{method}: ε is at least {bound.epsilon:.3g}, and {claimed:.3g} is charged",
            )
            self.exact(not bound.details.get("alarm"), "canaries move the release by too much")
        self.tests += round((len(bounds) + 1) * (1 - confidence) / SHARE)

    def shift(self, bounds: Sequence[Bound], name: str, limit: float) -> None:
        """Take in by how many deviations of the noise a game's canaries moved the release, with the
        interval; they may by `limit`.
        """
        seen = next(bound.details for bound in bounds if bound.method == "noise shift")
        value, margin = seen["mu"], 1.96 * seen["mu_error"]
        self.figures.append(Figure(name, value, value - margin, value + margin, 0.0, limit))

    @property
    def broken(self) -> bool:
        """Whether anything speaks against the claim."""
        return bool(self.against)

    @property
    def false_alarm(self) -> float:
        """The probability, at most, that an honest run came here."""
        return self.tests * SHARE

    def outcome(
        self, check: Check, against: str, unit: Literal["example", "client", ""], held: str
    ) -> Outcome:
        """What a check says: what speaks against the claim, or what held."""
        return Outcome(
            check.name,
            check.tried,
            against,
            unit,
            "broken" if self.broken else "held",
            "; ".join(self.against[:4]) or held,
            self.false_alarm,
            tuple(self.bounds),
            tuple(self.figures),
        )
