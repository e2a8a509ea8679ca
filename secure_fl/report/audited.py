"""What of a run was audited, and what came of it: figures, tables and pictures of `audit.json`,
beside what the run claims.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from math import floor, isfinite
from shlex import quote
from typing import Any

from secure_fl.audit.bounds.result import Bound
from secure_fl.audit.outcome import Figure, Outcome, Picture, Verdict
from secure_fl.audit.suite.document import AuditDocument
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.quantities import counted
from secure_fl.report.findings import ADJACENCY, by_epsilon, largest, right_at_most
from secure_fl.report.names import printable, sentence
from secure_fl.report.runs import Run
from secure_fl.report.tables import NONE, Cell, Mark, Table, confidence, epsilon, table

_FILE = "audit.json"
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">4sII")
"""Of a PNG's first chunk, past its length: its kind, width and height."""
_WIDEST = 1 << 13
_MARKS: dict[Verdict, Mark] = {"broken": "bad", "not tried": "quiet", "held": ""}
OUTDATED = "of another state of the folder"
LEFT_OUT = (
    "An audit is its experimenter's, and this run leaves out what only its experimenter knows "
    "(evaluate.enabled = false): nothing of one is on this page."
)


@dataclass(frozen=True)
class Shown:
    """A picture for the page: what is seen, and its data address."""

    said: str
    address: str


@dataclass(frozen=True)
class Audit:
    """A run, and the audit that lies in its folder."""

    run: Run
    document: AuditDocument

    @classmethod
    def of(cls, run: Run) -> Audit | None:
        """None where nothing has audited the run, or its record leaves audits out."""
        if run.audit is None or not Manifest.of(run.config).writes(_FILE):
            return None
        return cls(run, _in_lines(run.audit))

    @property
    def verdict(self) -> Verdict:
        """Of all checks together."""
        return self.document.verdict

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Of every check that was tried."""
        return self.document.outcomes

    @property
    def current(self) -> bool:
        """Whether the folder is still what was audited."""
        return self.run.is_as_audited

    @property
    def standing(self) -> str:
        """The verdict in a few words, after what takes away from it: checks that nobody asked for,
        and that the folder is not what was audited.
        """
        if not self.current:
            return OUTDATED
        said = "not everything was tried" if self.verdict == "not tried" else self.verdict
        return part_of(len(self.outcomes), len(self.document.left_out)) + said

    @property
    def alarming(self) -> bool:
        """Whether something is broken, or the audit is not of what lies in the folder."""
        return self.verdict == "broken" or not self.current

    @property
    def bounds(self) -> Iterator[tuple[Outcome, Bound]]:
        """Every bound and estimate on ε, with the outcome that it is of."""
        return ((outcome, bound) for outcome in self.outcomes for bound in outcome.bounds)

    @property
    def figures(self) -> Iterator[tuple[Outcome, Figure]]:
        """Everything that was measured, with the outcome that it is of."""
        return ((outcome, figure) for outcome in self.outcomes for figure in outcome.figures)

    def claimed(self, outcome: Outcome, bound: Bound) -> float | None:
        """The ε that a bound is held against: its own, or the run's for that unit, against that
        adversary where the run says one; None where nothing is claimed.
        """
        if "claimed" in bound.details:
            own_claim = bound.details["claimed"]
            return own_claim if isfinite(own_claim) else None
        said = self.run.summary.charged
        if said is None or not outcome.unit:
            return None
        own = [claim for claim in said.claims if claim.unit == outcome.unit]
        against = [claim.epsilon for claim in own if claim.adversary == outcome.against]
        if against:
            return against[0]
        return largest(said) if said.unit == outcome.unit else None

    def count(self, verdict: Verdict) -> int:
        """How many checks came to it."""
        return sum(outcome.verdict == verdict for outcome in self.outcomes)

    @property
    def told(self) -> str:
        """The whole of it in a sentence."""
        counts = f"{self.count('held')} held, {self.count('broken')} broken"
        checks = counted(len(self.outcomes), "check")
        found = f"{checks}: {counts}, {self.count('not tried')} not tried"
        left, beside = len(self.document.left_out), len(self.document.refused)
        found += f", {left} more left out by whoever audited" if left else ""
        return found + (f"; {beside} more do not apply to this run" if beside else "")

    @property
    def nearest(self) -> str:
        """The bound that came nearest to the claim that it is held against; without any, that ε
        itself was not measured, and nothing where none is claimed.
        """
        held = [
            (bound.epsilon / claim, outcome, bound, claim)
            for outcome, bound in self.bounds
            if bound.kind == "bound" and (claim := self.claimed(outcome, bound))
        ]
        if not held:
            unmeasured = (
                "ε itself was not measured: no bound here can be held against what is claimed."
            )
            return "" if self.run.summary.charged is None else unmeasured
        _, outcome, bound, claim = max(held, key=lambda each: each[0])
        if bound.epsilon <= 0:
            return "No bound on ε from below came above 0."
        return (
            f"Nearest to its claim came {outcome.check} ({bound.method}): ε ≥ "
            f"{at_least(bound.epsilon)}, where {epsilon(claim)} is claimed of what it played."
        )


def part_of(asked: int, left_out: int) -> str:
    """How many checks were asked for, before their verdict; nothing where that is all of them."""
    return f"{asked} of {counted(asked + left_out, 'check')}: " if left_out else ""


def at_least(value: float) -> str:
    """A lower bound on ε, never rounded up."""
    if not isfinite(value):
        return "every finite ε"
    return f"{floor(value * 1000 + 1e-9) / 1000:.3f}" if value > 0 else "0"


def command(run: Run, verb: str) -> str:
    """What audits or verifies a run, typed beside its folder."""
    return f"secure-fl {verb} {quote(printable(run.folder.name))}"


def badge(run: Run) -> Cell:
    """The audit's verdict, which stands beside the run's name."""
    audit = Audit.of(run)
    if audit is None:
        unknown = "never audited" if run.audit is None else "audit: not in this record"
        return Cell(unknown, mark="quiet")
    mark: Mark = "bad" if audit.alarming else ""
    return Cell(f"audit, depth {audit.document.depth}: {audit.standing}", mark=mark)


def claim_lines(run: Run) -> list[str]:
    """What was claimed, against whom, for which unit."""
    said = run.summary.charged
    if said is None:
        return ["No ε is claimed: nothing of this run is noised."]
    return [
        f"ε = {epsilon(value)} at δ = {said.delta:g} for one {unit}, against {'; '.join(who)}"
        + ("" if value is None else f": {in_words(unit, value, said.delta)}")
        for unit, value, who in by_epsilon(said.claims)
    ] + [f"{said.adjacency}: what is told apart is a data set {ADJACENCY[said.adjacency]}"]


def in_words(unit: str, value: float, delta: float) -> str:
    """What an ε means for whoever guesses whether one was in."""
    guess = f"someone who must tell, at even odds, whether one {unit} was in"
    return f"{guess}, is right at most {right_at_most(value, delta)} of the time"


def outcome_table(audit: Audit) -> Table:
    """A row for each check."""
    titles = "/check/ | /verdict/ | /asked/ | /against/ | /hidden/ | /seen/ | /false alarm/"
    rows: list[list[Cell | str]] = []
    for each in audit.outcomes:
        alarm = f"at most {each.false_alarm:g}" if each.false_alarm else "none: exact"
        verdict = Cell(each.verdict, mark=_MARKS[each.verdict])
        told = each.tried, each.against, _hidden(each), each.said, alarm
        rows.append([each.check, verdict, *told])
    return table("Every check, and what came of it", titles, rows)


def bound_table(audit: Audit) -> Table | None:
    """A row for each bound and estimate; None without any."""
    rows = []
    for outcome, bound in audit.bounds:
        claim, isbound = audit.claimed(outcome, bound), bound.kind == "bound"
        refuted = isbound and claim is not None and bound.epsilon > claim
        value = at_least(bound.epsilon)
        cells: list[Cell | str] = [
            f"{outcome.check}: {bound.method}",
            Cell(f"ε {'≥' if isbound else '≈'} {value}", mark="bad" if refuted else ""),
            Cell(NONE if claim is None else epsilon(claim)),
            f"{bound.delta:g}",
            confidence(bound.confidence) if isbound else "estimate",
            _hidden(outcome),
            Cell("", items=bound.assumptions),
        ]
        rows.append(cells)
    titles = "/method/ | found | claimed ε | δ | confidence | /hidden/ | /counts on/"
    caption = "ε from below, beside what is claimed"
    return table(caption, titles, rows) if rows else None


def figure_table(audit: Audit) -> Table | None:
    """A row for each figure; None without any."""
    rows: list[list[Cell | str]] = [
        [
            f"{outcome.check}: {figure.name}",
            figure.setting or NONE,
            *_measured(figure),
        ]
        for outcome, figure in audit.figures
    ]
    titles = "/measured/ | /setting/ | value | 95 % interval | by chance | limit"
    return table("What was measured", titles, rows) if rows else None


def _measured(figure: Figure) -> list[Cell | str]:
    """A figure, its interval, and what it is read against; counts without decimals."""
    said = [figure.value, figure.chance, figure.limit]
    whole = figure.low is None and all(each is None or float(each).is_integer() for each in said)
    value, chance, limit = (_number(each, whole=whole) for each in said)
    interval = NONE if figure.low is None else f"{figure.low:.3f} to {figure.high:.3f}"
    return [value, interval, chance, limit]


def _number(value: float | None, *, whole: bool) -> str:
    if value is None:
        return NONE
    if whole or not isfinite(value):
        return f"{value:.0f}"
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def _hidden(outcome: Outcome) -> str:
    return f"one {outcome.unit}" if outcome.unit else NONE


def others(audit: Audit) -> list[tuple[str, list[str]]]:
    """Checks that were not part of the audit, by heading: that nobody asked for, and that do not
    apply, with the reason.
    """
    refused = [f"{each.check} ({each.tried}): {each.why}" for each in audit.document.refused]
    found = [
        ("Left out by whoever audited, though they apply", list(audit.document.left_out)),
        ("Not applicable to this run", refused),
    ]
    return [(f"{heading} ({len(texts)})", texts) for heading, texts in found if texts]


def pictures(audit: Audit) -> list[Shown]:
    """Pictures of attacks. Raises ValueError: one is no picture, or too large for a page."""
    return [_shown(each) for outcome in audit.outcomes for each in outcome.pictures]


def _in_lines(value: Any) -> Any:
    """A record with every text of it as `sentence` shows it, but for pictures."""
    if isinstance(value, str):
        return sentence(value)
    if isinstance(value, tuple):
        return tuple(map(_in_lines, value))
    if isinstance(value, Mapping):
        return {sentence(str(name)): _in_lines(item) for name, item in value.items()}
    if not is_dataclass(value) or isinstance(value, type):
        return value
    names = [each.name for each in fields(value) if each.name != "png"]
    return replace(value, **{name: _in_lines(getattr(value, name)) for name in names})


def _shown(picture: Picture) -> Shown:
    try:
        data = base64.b64decode(picture.png, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if not data.startswith(_PNG):
        raise ValueError("not a PNG")
    try:
        kind, *sides = _HEADER.unpack_from(data, len(_PNG) + 4)
    except struct.error:
        raise ValueError("not a PNG") from None
    if kind != b"IHDR" or not all(0 < side <= _WIDEST for side in sides):
        raise ValueError("not a PNG of a size to be looked at")
    return Shown(picture.said, f"data:image/png;base64,{base64.b64encode(data).decode()}")
