"""Does one example move what a run releases by more than the run charges for?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from secure_fl.audit.check import Depth
from secure_fl.audit.finding import SensitivityReport
from secure_fl.audit.neighbour_search import path_sensitivity
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.own_training import nothing_private, private_phases
from secure_fl.audit.subject import Subject
from secure_fl.errors import PrivacyError

_SIZES = {Depth.MINUTES: (12, 1, 60), Depth.HOUR: (32, 4, 200), Depth.NIGHT: (64, 10, 600)}
"""Examples, trials, and steps of the search."""
_SECONDS = {Depth.MINUTES: 30.0, Depth.HOUR: 400.0, Depth.NIGHT: 5000.0}
"""After which nothing more is optimised."""


@dataclass(frozen=True)
class PathCoupling:
    """The whole path on the run's own examples, against optimised neighbours.

    **Guarantee**: `broken` names neighbours on which a claim is false; no chance decides.
    **Not covered**: as `path_sensitivity`.
    """

    name: str = "coupling"
    tried: str = "whether one example moves a released sum by more than is charged"

    def refused(self, subject: Subject) -> str:
        return nothing_private(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """About 10 seconds a phase at the quick depth, for a small encoder."""
        seconds = {Depth.MINUTES: 10.0, Depth.HOUR: 150.0, Depth.NIGHT: 2000.0}[depth]
        return seconds * len(private_phases(subject.config))

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        examples, trials, climbs = _SIZES[depth]
        try:
            report = path_sensitivity(
                subject,
                examples=examples,
                trials=trials,
                climbs=climbs,
                seconds=_SECONDS[depth],
                seed=seed,
            )
        except PrivacyError as refusal:
            return self._outcome("broken", f"the run's own guard refuses: {refusal}", ())
        progress(1.0)
        worst = report.worst
        assert worst is not None
        moved = f"{worst.released} by {worst.ratio:.4f} of what is charged ({worst.newcomer})"
        if report.passed:
            tried = len(report.findings)
            return self._outcome("held", f"of {tried} tries, the worst moved {moved}", _of(report))
        return self._outcome("broken", f"one example moves {moved}", _of(report))

    def _outcome(self, verdict: str, said: str, figures: tuple[Figure, ...]) -> Outcome:
        return Outcome(
            self.name,
            self.tried,
            "whoever sees every noised sum",
            "example",
            "broken" if verdict == "broken" else "held",
            said,
            0.0,
            (),
            figures,
        )


def _of(report: SensitivityReport) -> tuple[Figure, ...]:
    """The largest ratio of each released sum, over what is claimed."""
    worst = dict[tuple[str, str], float]()
    for each in report.findings:
        place = (each.released, each.edit)
        worst[place] = max(worst.get(place, 0.0), each.ratio)
    return tuple(
        Figure(f"{released}, {edit}: change over what is charged", ratio, None, None, None, 1.0)
        for (released, edit), ratio in worst.items()
    )


COUPLING = PathCoupling()
"""As the catalogue names it."""
