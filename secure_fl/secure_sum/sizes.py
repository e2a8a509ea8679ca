"""How long a message may be, by public facts alone: no longer one is looked at."""

from __future__ import annotations

from secure_fl.crypto.envelope import Phase, head_bytes
from secure_fl.crypto.identities import LONGEST_NAME
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.sealing import SALTED_OVERHEAD
from secure_fl.crypto.shares import SHARE_BYTES
from secure_fl.he.ciphertexts import Kind
from secure_fl.he.ciphertexts import body_bytes as cipher_bytes
from secure_fl.secure_sum.block_codec import body_bytes
from secure_fl.secure_sum.digests import APPLIED_BYTES
from secure_fl.secure_sum.key_directory import TAG_BYTES
from secure_fl.secure_sum.plan import RoundPlan

_SECRET, _FRAME, _COUNT, _ENTRY = 32, 8, 4, 4
"""Bytes of a secret; of a length and a count in `frames`; of a share's place and owner."""


def check_size(data: bytes | memoryview, most: int) -> None:
    """Refuse what is longer than any message that is waited for: `wrong-length`."""
    if len(data) > most:
        problem, remedy = f"at most {most} bytes are expected", "send what was asked for"
        raise RefusedError(Reason.WRONG_LENGTH, problem, "message", len(data), remedy)


def most_bytes(plan: RoundPlan, phase: Phase, *, to_client: bool) -> int:
    """Length of a phase's longest message, from the server or to it."""
    name = (int(phase), to_client)
    if name not in plan.longest:
        plan.longest[name] = _most_bytes(plan, phase, to_client=to_client)
    return plan.longest[name]


def _most_bytes(plan: RoundPlan, phase: Phase, *, to_client: bool) -> int:
    clients, holders, shape = len(plan.cohort), plan.neighbourhood, plan.shape
    blocks = shape.blocks
    head = head_bytes(plan.header(phase, "x" * LONGEST_NAME, chunks=blocks))
    places, applied = 2 + 2 * clients, 2 * head + APPLIED_BYTES
    boxes = 2 * places + holders * (_COUNT + box_bytes(plan))
    advertised = head + 3 * _SECRET
    agreed = head + 2 * _SECRET + 2
    shares = clients * (blocks + 1) * (_ENTRY + SHARE_BYTES) if plan.masked else 0
    revealed = head + 2 + 2 * shape.pools + 4 + shares
    counts = head + _SECRET + 4 + 8 * shape.head_fields + 2 + 2 * shape.pools
    if not to_client:
        if phase is Phase.UPLOAD:
            return _COUNT + sum(_FRAME + head + body_bytes(plan, each) for each in range(blocks))
        return {
            Phase.ADVERTISE: advertised,
            Phase.SHARE: head + boxes,
            Phase.AGREE: agreed,
            Phase.OPEN_COUNTS: max(revealed, counts),
            Phase.OPEN_POOLS: revealed,
        }.get(phase, applied)
    if phase is Phase.ADVERTISE:
        return head + _COUNT + clients * (_FRAME + advertised)
    if phase in (Phase.SHARE, Phase.AGREE):
        return head + (boxes if phase is Phase.SHARE else _SECRET + places)
    request = head + _SECRET + 2 * places + _COUNT
    proof = clients * (3 * _FRAME + head + body_bytes(plan, 0) + 2 * _SECRET) + 2 * _FRAME
    shown = clients * (_FRAME + advertised) + clients * (_FRAME + agreed) + 2 * (_FRAME + _COUNT)
    if phase is Phase.OPEN_COUNTS:
        return request + shown + proof
    sums = sum(_FRAME + sum_bytes(plan, block) for block in range(blocks))
    if phase is Phase.OPEN_POOLS:
        of_sums = sums if plan.opener == "authority" else 0
        return request + max(proof, of_sums, _FRAME + counts)
    return head + _COUNT + max(sums, clients * (_FRAME + applied))


def box_bytes(plan: RoundPlan) -> int:
    """Length of a box of shares and tags: one dealer's mask key, and its seed of every block."""
    return SALTED_OVERHEAD + (1 + plan.shape.blocks) * (TAG_BYTES + SHARE_BYTES)


def sum_bytes(plan: RoundPlan, block: int) -> int:
    """Length of one block's sum, as the server hands it to whoever opens."""
    if plan.parameters is None:
        return 8 * plan.numbers(block)
    return cipher_bytes(plan.parameters, plan.numbers(block), Kind.SUM)
