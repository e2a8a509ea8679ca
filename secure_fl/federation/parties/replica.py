"""The models as one of their holders has them: what opened sums make of them, and how they travel.

Guarantee: the state follows from the plan and the opened sums alone. A sealed state opens only
under the federation's key, for this plan, this place and this digest.
Assumes: the program's `apply` is the same function at everybody; ChaCha20-Poly1305.
Not covered: who sealed it; a digest that enough appliers signed stands for that.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.sealing import open_with, seal_with
from secure_fl.crypto.strict_json import canonical, malformed
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Program
from secure_fl.federation.state import State
from secure_fl.federation.succession import begins_anew
from secure_fl.federation.summing import Summed
from secure_fl.federation.wire import Wire, shown
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.opener import Opened

_COUNTS = struct.Struct(">IH")


class Replica:
    """One holder's state. Where the plan follows another, whoever was not in that one begins at the
    program's beginning, and fetches the state like somebody who was away.

    Args:
        plan: of the federation.
        program: that it makes.
        shared: what parties of one process share.
        held: the state that this holder had come to under the plan before.

    Raises:
        RefusedError: `other-start`: the program does not begin where the plan says.
    """

    def __init__(
        self, plan: Plan, program: Program, shared: Shared, held: State | None = None
    ) -> None:
        self._plan, self.program, self._shared = plan, program, shared
        self.state = held or shared.state(b"start|" + plan.digest, program.start)
        follows = plan.follows
        if follows is not None and not begins_anew(program, follows.place):
            problem, remedy = "nobody can join in that round", "end the one before at another round"
            value = shown(follows.place)
            raise RefusedError(Reason.OTHER_START, problem, "plan", value, remedy)
        if (held is not None or follows is None) and self.state.digest != plan.start:
            problem = "the models of the plan are not those that this software makes"
            remedy = "use the version of the software that the plan names"
            raise RefusedError(
                Reason.OTHER_START, problem, "plan", self.state.digest.hex()[:16], remedy
            )

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.state.place

    def after(self, opened: Sequence[Opened], left_out: Sequence[str] = ()) -> State:
        """The next state, from the sums of all groups that were opened; nothing is changed here."""
        state, shape = self.state, self.program.form(self.place).shape
        facts = [b"after|", state.digest, *(one.digest for one in opened)]
        name = hashlib.sha256(b"".join(facts) + canonical(list(left_out))).digest()

        def apply() -> State:
            total = summed([summed_of(one, shape) for one in opened], tuple(left_out))
            return self.program.apply(state, total)

        return self._shared.state(name, apply)

    def seal(self, secret: bytes, state: State) -> bytes:
        """A state for whoever knows the federation's key."""
        context = _context(self._plan, state.place, state.digest)
        return seal_with(secret, state.encode(), context)

    def sealed(self, wire: Wire, secret: bytes, state: State) -> bytes:
        """The message that brings a state to the others: sealed by `seal`, and signed."""
        facts = {"place": shown(state.place), "state": state.digest.hex(), "call": {}}
        return wire.sign(Phase.STATE, facts, self.seal(secret, state))

    def take(self, secret: bytes, sealed: bytes, place: Place, digest: bytes) -> None:
        """Go on from a sealed state. Raises RefusedError: `wrong-key`, or `malformed`: not the
        state of that digest and place.
        """
        self.state = self._shared.state(
            digest, lambda: open_state(self._plan, secret, sealed, place, digest)
        )


def open_state(plan: Plan, secret: bytes, sealed: bytes, place: Place, digest: bytes) -> State:
    """A state out of its sealed bytes. Raises RefusedError: `wrong-key`, or `malformed`: not the
    state of that digest and place.
    """
    data = open_with(secret, sealed, _context(plan, place, digest))
    state = State.decode(data, plan.largest_state)
    if state.digest != digest or state.place != place:
        raise malformed("state", "not the one of this digest")
    return state


def summed_of(opened: Opened, shape: BlockShape) -> Summed:
    """Opened sums as tensors; a pool that stayed closed is zero."""
    pools = torch.zeros(shape.pools, shape.width, dtype=torch.int64)
    for pool, values in opened.pools.items():
        pools[pool] = torch.from_numpy(values)
    empty: Tensor = torch.zeros(0, dtype=torch.int64)
    shared = empty if opened.shared is None else torch.from_numpy(opened.shared)
    return Summed(Blocks(torch.from_numpy(opened.head), shared, pools), opened.survivors)


def summed(groups: Sequence[Summed], left_out: tuple[str, ...]) -> Summed:
    """The sum of a round; of several groups, their total with each of them."""
    if len(groups) == 1 and not left_out:
        return groups[0]
    total = groups[0].total
    for group in groups[1:]:
        total = total + group.total
    return Summed(total, sum(group.survivors for group in groups), tuple(groups), left_out)


def encode_opened(opened: Opened) -> bytes:
    """A group's opened sums as bytes, of a length that shape and passing pools decide. They fit 32
    bits: fields that fill a slot (`Opening.whole`) are never summed in groups.
    """
    passing = struct.pack(f">{len(opened.passing)}H", *opened.passing)
    parts = [opened.head, *([] if opened.shared is None else [opened.shared])]
    parts += [opened.pools[pool] for pool in opened.passing]
    body = b"".join(part.astype("<i4").tobytes() for part in parts)
    return _COUNTS.pack(opened.survivors, len(opened.passing)) + passing + body


def decode_opened(data: bytes, shape: BlockShape) -> Opened:
    """What `encode_opened` wrote. Raises RefusedError: `malformed`."""
    if len(data) < _COUNTS.size:
        raise malformed("opened sums", "too short")
    survivors, count = _COUNTS.unpack_from(data)
    start = _COUNTS.size + 2 * count
    sizes = [shape.head_fields, *([shape.shared] if shape.shared else []), *([shape.width] * count)]
    if len(data) != start + 4 * sum(sizes):
        raise malformed("opened sums", "of another length")
    passing = struct.unpack_from(f">{count}H", data, _COUNTS.size)
    if list(passing) != sorted(set(passing)) or any(pool >= shape.pools for pool in passing):
        raise malformed("opened sums", "no such pools")
    values = np.frombuffer(data[start:], "<i4").astype(np.int64)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    first = 1 + bool(shape.shared)
    pools = dict(zip(passing, parts[first:], strict=True))
    return Opened(survivors, parts[0], passing, parts[1] if shape.shared else None, pools)


def _context(plan: Plan, place: Place, digest: bytes) -> bytes:
    return b"secure-fl sealed state 1|" + plan.digest + canonical(shown(place)) + digest
