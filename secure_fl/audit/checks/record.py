"""Whether a run's folder still says what the run wrote."""

from __future__ import annotations

from collections.abc import Callable

from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.federation.verify.check import verify


class RecordCheck:
    """Reads the record as `secure-fl verify` does, and fails where anything does not fit.

    **Guarantee**: a ledger, a round, a claim, a model or a setting that was changed after the run
    shows, as long as anything else in the folder still tells of it.
    **Assumes**: not all of the folder was put together anew. Whoever does that is found by who kept
    the transcript's head, and by nobody else.
    **Not covered**: what nobody recorded: a release that was never charged leaves a whole record
    (`charges` looks for those).
    """

    name = "record"
    tried = "whether a file of the record was changed, or does not fit the others"

    def refused(self, subject: Subject) -> str:
        return "" if subject.folder is not None else "only a run that has ended has a record"

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 10.0

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        assert subject.folder is not None
        found = verify(subject.folder)
        said = f"{', '.join(what for what, _ in found.checked)} fit each other"
        if not found.ok:
            first = found.findings[0]
            more = f"; {len(found.findings) - 1} more" if len(found.findings) > 1 else ""
            said = f"{first.file}: {first.field}: {first.problem}{more}"
        return Outcome(
            self.name,
            self.tried,
            "whoever had the folder after the run",
            "",
            "held" if found.ok else "broken",
            said,
            figures=(Figure("places that do not fit", len(found.findings), limit=0),),
        )


RECORD = RecordCheck()
