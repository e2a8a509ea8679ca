"""What a server writes of a federation: public facts, in the words of its transcript."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from secure_fl.crypto.envelope import Header, Phase
from secure_fl.federation.parties.calling import Call
from secure_fl.federation.program import SumForm
from secure_fl.federation.transcript.chain import START, Line
from secure_fl.federation.transcript.entries import entry_of
from secure_fl.federation.wire import shown
from secure_fl.he.ceremony import Epoch
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import Refusal

_WHOLE = (Phase.ADVERTISE, Phase.AGREE, Phase.APPLY)
"""Phases whose messages are short, and evidence as they are."""


class Stage(StrEnum):
    """What the server waits for."""

    JOIN = "join"
    KEYS = "keys"
    SUM = "sum"
    PARTS = "parts"
    RESULTS = "results"
    OVER = "over"


@dataclass(frozen=True)
class Journal:
    """Where a server writes what happens.

    Attributes:
        write: takes the kind of an entry, its facts, and signed messages as evidence.
        after: the transcript's lines after a head.
        head: of the transcript, 32 bytes.
    """

    write: Callable[[str, Mapping[str, Any], Sequence[bytes]], object] = lambda *_: None
    after: Callable[[bytes], list[bytes]] = lambda _: []
    head: Callable[[], bytes] = lambda: bytes(32)


def going_on(
    journal: Journal, head: bytes, before: Sequence[bytes] = ()
) -> tuple[Journal, list[Line]]:
    """A journal for a server that is made again and does once more what it did after `head`.

    Args:
        before: heads of lines before it that are still to be done once more.

    Returns:
        The journal, which writes nothing a second time; and the lines that it will not write, as
        long as what they say was not done once more.
    """
    told = [Line.read(data) for data in journal.after(head)]
    if before:
        told += [each for each in map(Line.read, journal.after(START)) if each.head in before]

    def write(kind: str, facts: Mapping[str, Any], evidence: Sequence[bytes]) -> None:
        entry = entry_of(kind, dict(facts))
        found = next((each for each in told if each.entry == entry), None)
        if found is None:
            journal.write(kind, facts, evidence)
        else:
            told.remove(found)

    return replace(journal, write=write), told


def keys_facts(fingerprint: bytes, maker: str, epoch: Epoch) -> dict[str, Any]:
    """An encryption key is in force."""
    rounds = {"first": epoch.first_round, "last": epoch.last_round}
    return {"fingerprint": fingerprint.hex(), "maker": maker, **rounds}


def refused_facts(refusal: Refusal, number: int | None) -> dict[str, Any]:
    """A message that was turned away."""
    who = {"sender": refusal.sender, "by": refusal.by}
    return {**who, "phase": refusal.phase, "reason": refusal.reason, "round": number}


def call_facts(plan: RoundPlan, call: Call, form: SumForm) -> dict[str, Any]:
    """A sum that begins; of a group, with those of all groups who are left out."""
    return {
        "round": call.number,
        "place": shown(call.place),
        "step": form.name,
        "attempt": call.attempt,
        "cohort": sorted({*plan.cohort, *call.left_out}),
        "left_out": list(call.left_out),
        "plan": plan.digest.hex(),
        "fewest": plan.survivors_needed,
        "threshold": plan.shares_needed if plan.masked else 0,
        "minimum": plan.minimum,
        "unit": plan.count_unit,
        "pools": plan.shape.pools if plan.shape.counted else 0,
        "exact": plan.exact_counts,
        "key": plan.key_fingerprint.hex(),
    }


def sum_facts(one: RoundServer, number: int, missed: Mapping[str, str]) -> dict[str, Any]:
    """A sum that was opened: what a server knows about it, which is not what is in it. It knows the
    counts of pools in the open, under masks, and where an authority tells them.
    """
    digests = [said.digest for said in one.applied.values()]
    counted = one.plan.shape.counted
    return {
        "round": number,
        "plan": one.plan.digest.hex(),
        "view": one.view.hex(),
        "survivors": list(one.survivors),
        "uploads": {name: digest.hex() for name, digest in sorted(one.uploads.items())},
        "missed": dict(sorted(missed.items())),
        "counts": one.counts and list(one.counts) if counted else [],
        "passing": list(one.passing),
        "digest": max(set(digests), key=digests.count).hex(),
    }


def evidence_in(
    header: Header, data: bytes | memoryview, authority: str | None
) -> tuple[bytes, ...]:
    """What of a message of a sum a transcript keeps: short ones. Of uploads the sum keeps heads. Of
    the messages that open counts only the authority's, which has no client's secret in it.
    """
    phase = header.phase
    whole = phase in _WHOLE or (phase == Phase.OPEN_COUNTS and header.sender == authority)
    return (bytes(data),) if whole else ()
