"""What a server writes of a federation: public facts, in the words of its transcript."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secure_fl.crypto.envelope import Phase, head_bytes, read_header
from secure_fl.federation.calling import Call
from secure_fl.federation.program import SumForm
from secure_fl.federation.wire import shown
from secure_fl.he.ceremony import Epoch
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import Refusal

_WHOLE = (Phase.ADVERTISE, Phase.AGREE, Phase.APPLY)
"""Phases whose messages are short, and evidence as they are."""


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
    """A sum that was opened: what a server knows about it, which is not what is in it."""
    digests = [said.digest for said in one.applied.values()]
    return {
        "round": number,
        "view": one.view.hex(),
        "survivors": list(one.survivors),
        "uploads": {name: digest.hex() for name, digest in sorted(one.uploads.items())},
        "missed": dict(sorted(missed.items())),
        "counts": None,
        "passing": list(one.passing),
        "digest": max(set(digests), key=digests.count).hex(),
    }


def evidence_in(phase: Phase, data: bytes | memoryview) -> tuple[bytes, ...]:
    """What of a message of a sum a transcript keeps: short ones, and an upload's signed heads."""
    if phase in _WHOLE:
        return (bytes(data),)
    if phase != Phase.UPLOAD:
        return ()
    parts = unframe(memoryview(data))
    return tuple(bytes(part[: head_bytes(read_header(part))]) for part in parts)
