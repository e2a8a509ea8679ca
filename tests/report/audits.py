"""An audit put together by hand, and laid into a run's folder."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from secure_fl.audit.bounds.result import Bound
from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Figure, Outcome, Picture
from secure_fl.audit.suite.document import (
    AuditDocument,
    Audited,
    Refused,
    record_digest,
    verdict_of,
    write_audit,
)

MADE = "2026-11-30T22:05Z"
LOW = Bound("one-run f-DP", 0.7654, 1e-5, 0.95, ("fair coins",))
GUESS = Bound("one-shot", 1.25, 1e-5, 0.0, ("a Gaussian",), kind="estimate")
NOISE = Outcome(
    "example-noise", "the noise is less than what is charged", "server", "example", "held",
    "the shift is as claimed", 1e-3, (LOW, GUESS),
    (Figure("deviation of the noise", 1.013, 0.98, 1.04),),
)  # fmt: skip
RATES = (
    Figure("images found", 0.875, 0.8, 0.93, 0.01, setting="defence off"),
    Figure("images found", 0.0125, 0.0, 0.03, 0.01, 0.04, setting="defence on"),
)


def png() -> str:
    """A picture, base64."""
    from matplotlib.image import imsave

    written = BytesIO()
    imsave(written, [[0.0, 1.0], [1.0, 0.0]], format="png")
    return base64.b64encode(written.getvalue()).decode()


def attack() -> Outcome:
    """Of an attack, with a picture."""
    seen = Picture("the source, and what was made out", png())
    return Outcome(
        "inversion", "a gradient shows its images", "server", "example", "held",
        "nothing was made out", figures=RATES, pictures=(seen,),
    )  # fmt: skip


def audited(folder: Path, outcomes: Sequence[Outcome] | None = None) -> AuditDocument:
    """Lay an audit of the folder, as it stands, into it."""
    found = tuple(outcomes or (NOISE, attack()))
    made = AuditDocument(
        subject=Audited("toy", "run", record_digest(folder)),
        depth=Depth.MINUTES,
        made=MADE,
        seed=3,
        version="0.1.0",
        code="11",
        verdict=verdict_of(found),
        outcomes=found,
        refused=(Refused("choices", "a choice is seen", "there is one pool"),),
        left_out=("cohort",),
        seconds=1.5,
    )
    return write_audit(folder, made)


def broken(outcome: Outcome = NOISE, epsilon: float = 1e3) -> Outcome:
    """The same, refuted."""
    return replace(outcome, verdict="broken", bounds=(replace(LOW, epsilon=epsilon),))
