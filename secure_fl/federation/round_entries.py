"""Transcript entries of the secure sum's rounds, and what of a message is evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secure_fl.crypto.envelope import head_bytes, read_header
from secure_fl.federation.transcript_entries import KeysEntry, RoundEntry, SumEntry
from secure_fl.he.ceremony import Epoch
from secure_fl.secure_sum.messages import unframe
from secure_fl.secure_sum.opener import Opened
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.steps import claimed

_WHOLE = ("advertise", "agree", "apply")
"""Phases whose messages are short, and evidence as they are."""


def keys_entry(plan: RoundPlan, maker: str) -> KeysEntry:
    """The encryption key that a round's plan names, and the rounds that it serves."""
    epoch = Epoch.of(plan.round, plan.roster)
    return KeysEntry(plan.key_fingerprint.hex(), maker, epoch.first_round, epoch.last_round)


def round_entry(
    plan: RoundPlan,
    *,
    step: str,
    place: tuple[int, int],
    attempt: int,
    left_out: Sequence[str] = (),
) -> RoundEntry:
    """The entry with which a protected sum begins.

    Args:
        step, place: name of the program's step, and where the program is.
        attempt: at this place, from 1.
        left_out: clients of the cohort that are not asked.
    """
    return RoundEntry(
        round=plan.round,
        place=place,
        step=step,
        attempt=attempt,
        cohort=tuple(sorted({*plan.cohort, *left_out})),
        left_out=tuple(sorted(left_out)),
        plan=plan.digest.hex(),
        fewest=plan.survivors_needed,
        threshold=plan.shares_needed if plan.masked else 0,
        minimum=plan.minimum,
        unit=plan.count_unit,
        pools=plan.shape.pools if plan.shape.counted else 0,
        exact=plan.exact_counts,
        key=plan.key_fingerprint.hex(),
    )


def sum_entry(
    plan: RoundPlan,
    opened: Opened,
    *,
    view: bytes,
    survivors: Sequence[str],
    uploads: Mapping[str, bytes],
    missed: Mapping[str, str],
) -> SumEntry:
    """A protected sum was opened; arguments as in `secure_sum.Outcome`."""
    pools = plan.shape.pools if plan.shape.counted else 0
    return SumEntry(
        round=plan.round,
        view=view.hex(),
        survivors=tuple(survivors),
        uploads={name: upload.hex() for name, upload in sorted(uploads.items())},
        missed=dict(sorted(missed.items())),
        counts=tuple(int(count) for count in opened.head[:pools]),
        passing=tuple(opened.passing),
        digest=opened.digest.hex(),
    )


def evidence_in(data: bytes | memoryview) -> tuple[int, tuple[bytes, ...]] | None:
    """A message's round, and what of it a transcript keeps; None for other messages.

    That is key advertisements, agreements and signed digests as they are, and the signed heads of
    an upload's envelopes.

    Raises:
        RefusedError: the message cannot be read.
    """
    _, phase = claimed(data)
    if phase in _WHOLE:
        return read_header(data).round, (bytes(data),)
    if phase != "upload":
        return None
    parts = unframe(memoryview(data))
    heads = [read_header(part) for part in parts]
    kept = (bytes(part[: head_bytes(head)]) for part, head in zip(parts, heads, strict=True))
    return heads[0].round, tuple(kept)
