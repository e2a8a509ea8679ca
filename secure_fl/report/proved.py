"""What a run's record proves by itself, as `secure-fl verify` checks it, and what it does not."""

from __future__ import annotations

from secure_fl.quantities import counted
from secure_fl.report.runs import Run
from secure_fl.report.tables import Table, table

NOT_SHOWN = (
    "that the coordinator's key is the right one: compare its fingerprint with what you know, by "
    "another way than the folder came",
    "that noise was added: whoever leaves it out is not seen, hence the colluders that a claim "
    "counts on; an audit tries it in a simulation",
    "that audit.json is what an audit said: nobody signs it, and no digest covers it; audit again "
    "to know, the examples at hand",
    "that a party did nothing else beside what it signed, such as keep what it saw",
    "that nobody wrote all of it anew from end to end: whoever kept the head of the transcript "
    "sees that, and in a simulation one process signs for everybody",
)
"""What no record shows, whatever fits."""


def verdict(run: Run) -> str:
    """Whether everything fits, in a sentence."""
    found = run.verified.findings
    if not found:
        return (
            "Everything in the folder fits: it was checked against itself when this page was made."
        )
    many, do = counted(len(found), "thing"), "does" if len(found) == 1 else "do"
    return f"{many} in the folder {do} not fit: do not rely on this record."


def findings(run: Run) -> list[str]:
    """What does not fit."""
    return [f"{each.file}: {each.field}: {each.problem}" for each in run.verified.findings]


def checked_table(run: Run) -> Table:
    """What was held against what."""
    return table(
        "What was held against what, when this page was made",
        "/what/ | /how/",
        run.verified.checked,
    )


def uncovered(run: Run) -> list[str]:
    """Files that nothing, or not everything, was held against."""
    return [f"{file}: {why}" for file, why in run.verified.uncovered.items()]
