"""What a record claims of privacy, computed again, and held against the survivors of its sums.

Guarantee: where nothing is found, every ε and every claim that the record states follows from the
ledger's events by `privacy.accounting`; each opened sum of a round that counts on distributed noise
has at least the survivors that this noise was charged for; and each of these survivors was charged
for that round.
Assumes: survivors added the noise shares that they were to add.
Not covered: releases that nobody recorded; what a client says of its own sampling (`declared`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isclose

from secure_fl.config import FederationConfig
from secure_fl.errors import SecureFLError
from secure_fl.federation.releases.privacy_record import privacy_said, sketches_said
from secure_fl.federation.run_folder.summary import Privacy, Summary
from secure_fl.federation.transcript.entries import LedgerEntry, PlanEntry, RoundEntry, SumEntry
from secure_fl.federation.verify.rounds import FILE, Finding
from secure_fl.privacy.chain import Mark
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.ledger import NOISED_BY_KEY_HOLDER, PrivacyLedger, Release
from secure_fl.records import document

LEDGER, SUMMARY = "ledger.json", "summary.json"
_TOLERANCE = 1e-3
"""Relative difference of ε that other versions of libraries may cause."""
_WORDS = re.compile(r"\.(assumes|not_covered|sampling|adversary|outside|covers)\b")
"""Fields that hold sentences."""


def events_again(ledger: PrivacyLedger, marks: Sequence[tuple[str, Mark]]) -> list[Finding]:
    """Every ε that the ledger states, and every mark that was taken of it."""
    try:
        found = ledger.verify(marks)
    except SecureFLError as problem:
        return [Finding(LEDGER, "releases", problem.problem)]
    return [Finding(LEDGER, "stated or releases", problem) for problem in found.problems]


def claims_again(
    summary: Summary, config: FederationConfig, ledger: PrivacyLedger, *, words: bool
) -> list[Finding]:
    """What `summary.json` says of privacy against what its ledger gives.

    Args:
        words: whether it was written by this version of the software, so that its sentences are the
            same as well.
    """
    name = "privacy" if config.privacy.unit != "none" else "sketches"
    if ledger.budget is None:
        return [Finding(LEDGER, "budget", "there is none")]
    try:
        said = (privacy_said if name == "privacy" else sketches_said)(config, ledger, ledger.budget)
    except SecureFLError as problem:
        return [Finding(SUMMARY, name, f"cannot be computed: {problem.problem}")]
    stated = summary.privacy if name == "privacy" else summary.sketches
    if stated is None:
        return [Finding(SUMMARY, name, "missing, though there is a ledger")]
    if isinstance(stated, Privacy):  # the pools' follows from choices, which no ledger tells
        stated = replace(stated, pools=None)
    found = differing(document(stated), document(said), name)
    kept = [each for each in found if words or not _WORDS.search(each[0])]
    return [Finding(SUMMARY, where, problem) for where, problem in kept]


def differing(stated: object, found: object, where: str) -> Iterator[tuple[str, str]]:
    """Fields in which two JSON values differ, numbers by more than rounding does."""
    if isinstance(stated, Mapping) and isinstance(found, Mapping):
        for key in sorted({*stated, *found}):
            yield from differing(stated.get(key), found.get(key), f"{where}.{key}")
    elif isinstance(stated, list | tuple) and isinstance(found, list | tuple):
        if len(stated) != len(found):
            yield where, f"has {len(stated)} entries, computed {len(found)}"
        for number, (ours, theirs) in enumerate(zip(stated, found, strict=False)):
            yield from differing(ours, theirs, f"{where}[{number}]")
    elif isinstance(stated, float) and isinstance(found, float):
        if not isclose(stated, found, rel_tol=_TOLERANCE, abs_tol=1e-9):
            yield where, f"stated as {stated:.6g}, computed {found:.6g}"
    elif stated != found or isinstance(stated, bool) != isinstance(found, bool):
        yield where, f"stated as {_short(stated)}, computed {_short(found)}"


def noise_of_sums(
    releases: Iterable[Release],
    sums: Iterable[tuple[PlanEntry, RoundEntry, SumEntry]],
    *,
    everybodys: bool,
) -> list[Finding]:
    """Where distributed noise counts on more clients than were in the sum that it hides.

    It counts on `parties` honest ones beside the colluders.

    Args:
        everybodys: whether the ledger holds the releases of all clients, and not of one.
    """
    charged = _charged(releases)
    phases, findings = {phase for phase, _ in charged}, list[Finding]()
    subjects = {subject for each in charged.values() for subject in each}
    for plan, begun, total in sums:
        if begun.step not in phases:
            continue
        parties = charged.get((begun.step, begun.place[1]), {})
        counted, survivors = max(parties.values(), default=0), len(total.survivors)
        where = f"round {total.round}: sum.survivors"
        if survivors < counted + plan.colluders:
            told = f"the noise is charged for {counted} honest ones and {plan.colluders} colluding"
            problem = f"{survivors}; {told}: this round refutes the claim"
            findings.append(Finding(FILE, where, problem))
        numbers = {plan.clients.index(name) for name in total.survivors if name in plan.clients}
        if not (numbers if everybodys else numbers & subjects) <= parties.keys():
            findings.append(Finding(FILE, where, "a survivor was not charged for this round"))
    return findings


def _charged(releases: Iterable[Release]) -> dict[tuple[str, int], dict[int, int]]:
    """(phase, round) -> client -> honest clients that its release's noise counts on."""
    found: dict[tuple[str, int], dict[int, int]] = {}
    for release in releases:
        own = release.purpose != NOISED_BY_KEY_HOLDER and release.history is None
        if own and isinstance(release.event, IntegerEvent):
            of_round = found.setdefault((release.phase, release.round), {})
            of_round |= dict.fromkeys(release.subjects, release.event.parties)
    return found


def marks_of(entries: Iterable[LedgerEntry], ledger: PrivacyLedger) -> list[tuple[str, Mark]]:
    """Marks in a transcript that this ledger must hold: a simulation's, or its own client's.

    A client's ledger is known by its marks, which are nobody else's; where it fits none, those of
    the first client are given.
    """
    by_owner: dict[str | None, list[tuple[str, Mark]]] = {}
    for entry in entries:
        by_owner.setdefault(entry.client, []).append((FILE, Mark(entry.length, entry.head)))
    fitting = [marks for marks in by_owner.values() if not ledger.lost(marks)]
    return by_owner.get(None) or next(iter([*fitting, *by_owner.values()]), [])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
