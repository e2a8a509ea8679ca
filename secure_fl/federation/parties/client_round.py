"""One attempt at one round, as one client sees it: keys, its answer, what follows from the sums.

    BEGIN → set-up → answer → survivors → counts → pools → sums → what others say of them

Where clients are summed in groups, each opens its own group's sum, seals it for the others under
the federation's key, and goes on once it has those of all groups.

Guarantee: plans of sums are computed here, from the plan, the place, the attempt and who is left
out. Another group's sum is taken only as what t of its appliers signed; whoever sealed another is
named, and nothing is signed for it.
Assumes: what `RoundClient` assumes.
Not covered: which groups a server leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from secure_fl.crypto.envelope import Phase, Seen
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.sealing import open_with, seal_with
from secure_fl.crypto.strict_json import canonical, malformed
from secure_fl.errors import SecureSumError
from secure_fl.federation.parties.calling import Call, round_plans
from secure_fl.federation.parties.claims import check_enough, majority, read_claims
from secure_fl.federation.parties.keyring import Keyring
from secure_fl.federation.parties.replica import Replica, decode_opened, encode_opened
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Answers, SumForm
from secure_fl.federation.state import State
from secure_fl.federation.wire import Post, Wire, shown
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.digests import NOTHING, Applied, Next
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.masks import UsedSeeds
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError, accept
from secure_fl.secure_sum.opener import Opened
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.store import RoundStore


@dataclass(frozen=True)
class Seat:
    """What a client has throughout a federation."""

    wire: Wire
    plan: Plan
    replica: Replica
    answers: Answers
    keyring: Keyring
    store: RoundStore
    shared: Shared
    randomness: Callable[[int], bytes] = field(repr=False)
    used: UsedSeeds = field(default_factory=UsedSeeds, repr=False)
    keep: Callable[[], None] = lambda: None
    """Makes the client's state outlive its process; called before a next state is signed."""
    history: Callable[[], bytes] = lambda: bytes(32)
    """The head of the transcript that it follows."""

    def plans(self, call: Call, form: SumForm) -> tuple[RoundPlan, ...]:
        """The plans of a call's sums, one a group. Raises RoundRefusedError, RefusedError: as
        `round_plans`.
        """
        plan, roster = self.plan, self.wire.roster
        return self.shared.plans(plan, call, lambda: round_plans(plan, roster, form, call))


class ClientRound:
    """A client in one attempt. Raises RefusedError: no key is held that serves the round.

    Args:
        seat: what it has throughout.
        call: the attempt.
        form: of the round's sum.
        plans: of the sums, one a group.
    """

    def __init__(self, seat: Seat, call: Call, form: SumForm, plans: Sequence[RoundPlan]) -> None:
        self._seat, self.call, self.form, self._plans = seat, call, form, plans
        name = seat.wire.identity.name
        self.number = self._part = next(
            part for part, plan in enumerate(plans) if name in plan.cohort
        )
        self._plan = plans[self._part]
        self._begun = self._answered = False
        self.next: State | None = None
        """The state that follows, once this client has applied the sums."""
        self.agreed = False
        """Whether the others were heard to come to the same."""
        self._kept: Opened | None = None
        self._round = RoundClient(
            self._plan,
            seat.wire.identity,
            cipher=seat.keyring.cipher(self._plan),
            holder=seat.keyring.holder(self._plan) if self._plan.opener == "clients" else None,
            used=seat.used,
            store=seat.store,
            randomness=seat.randomness,
            verified=seat.shared.verified(call.number),
            applied=self._applied,
            history=seat.history,
        )

    @property
    def opened(self) -> Opened | None:
        """What this client opened: its group's sum."""
        return self._round.opened or self._kept

    @property
    def kept_sum(self) -> Opened | None:
        """The opened sum as long as it may be asked for: in groups, others need it."""
        return self.opened if len(self._plans) > 1 else None

    def take_up(self, after: State | None, agreed: bool, opened: Opened | None) -> None:
        """Go on with what an earlier life of this client came to in the round that was begun."""
        self.next, self.agreed, self._kept = after, agreed, opened
        self._begun = True

    def prepare(self) -> list[bytes | memoryview]:
        """Its keys, before the round begins, as long as nothing followed them. Raises
        RoundRefusedError: `already-begun`, or `already-opened`.
        """
        return [*self._round.begin()]

    def begin(self) -> list[bytes | memoryview]:
        """The first message: keys; where they are exchanged, or nothing is masked, the answer.
        Raises RoundRefusedError: `already-begun`, or `already-opened`.
        """
        self._begun = True
        if self._round.ready and not self._answered:
            return [self._upload()]
        kept = self._round.resend() if self._round.uploaded else None
        return [*self._round.begin()] if kept is None else [kept]

    def again(self) -> list[bytes | memoryview]:
        """The call came once more: the first message again, as long as nothing followed it, and
        nothing where its bytes were not kept. Answers follow from who stays, come again.
        """
        return [*self._round.begin()] if self._plan.masked else self.begin()

    def leave(self) -> None:
        """Throw away what was prepared."""
        self._round.leave()

    def receive(self, data: bytes) -> list[bytes | memoryview]:
        """One of the sum's messages, and the answers to it. Raises SecureFLError: why this client
        goes no further.
        """
        replies: list[bytes | memoryview] = [*self._round.receive(data)]
        if self._begun and self._round.ready and not self._answered:
            replies.append(self._upload())
        if self._round.confirmed and self.next is not None:
            check_enough(self._seat.plan, self.form, len(self._round.confirmed))
            self.agreed = True
        return replies

    def part(self, part: int) -> bytes:
        """This client's group's opened sum, sealed for the other groups. Raises RoundRefusedError:
        `out-of-turn`.
        """
        opened = self.opened
        if part != self._part or opened is None:
            raise _out_of_turn("this client opened no such sum", part)
        box = seal_with(self._seat.keyring.secret, encode_opened(opened), self._context(part))
        return self._seat.wire.sign(Phase.PART, {"part": part}, box, number=self.call.number)

    def take_parts(self, post: Post) -> bytes:
        """The sums of all groups that were opened; what follows from them, signed. Raises
        RefusedError: a box or a claim that does not fit; RoundRefusedError: `not-agreed`, or
        `out-of-turn`.
        """
        if len(self._plans) == 1:
            raise _out_of_turn("the sums are known", self.call.number)
        if self.next is not None:
            return self._result(self.next)
        bodies = unframe(post.rest, len(post.facts["parts"]))
        parts, reasons = post.facts["parts"], post.facts["left_out"]
        known = [part for part in parts if type(part) is int and 0 <= part < len(self._plans)]
        words = all(isinstance(reason, str) and len(reason) < 64 for reason in reasons)
        if not parts or known != sorted(set(parts)) or not words:
            raise malformed("parts", "are groups of the round, ascending")
        if len(parts) + len(reasons) != len(self._plans):
            raise malformed("parts", "every group is opened or left out")
        opened = [self._open(part, body) for part, body in zip(parts, bodies, strict=True)]
        self.next = self._seat.replica.after(opened, reasons)
        return self._result(self.next)

    def take_results(self, post: Post) -> None:
        """What everybody signed after a round in groups. Raises RefusedError: a claim that does not
        fit; RoundRefusedError: `forked`: most came to another state.
        """
        seat = self._seat
        claims = read_claims(seat.wire, seat.plan, self.form, self.call, unframe(post.rest))
        found = majority(claims)
        if self.next is None or found is None or found.state != self.next.digest:
            raise forked("other clients came to another state", len(claims))
        check_enough(seat.plan, self.form, list(claims.values()).count(found))
        self.agreed = True

    def _upload(self) -> memoryview:
        """The client's answer, protected; it is computed when nothing is left to be done before."""
        seat, self._answered = self._seat, True
        name = seat.wire.identity.name
        position = self.form.cohort.index(seat.plan.clients.index(name))
        blocks = seat.answers.answer(seat.replica.state, position)
        try:
            return self._round.upload(blocks.vector)
        except (RefusedError, RoundRefusedError):
            raise
        except SecureSumError as error:  # its own numbers: nobody else's message is to blame
            problem, remedy = error.problem, "mend what computes it"
            raise RefusedError(Reason.NO_ANSWER, problem, "answer", error.field, remedy) from None

    def _result(self, after: State) -> bytes:
        facts = {"place": shown(after.place), "state": after.digest.hex()}
        return self._seat.wire.sign(Phase.RESULT, facts, number=self.call.number)

    def _applied(self, opened: Opened) -> Next:
        if len(self._plans) > 1:
            self._kept = opened
            self._seat.keep()
            return NOTHING
        self.next = self._seat.replica.after([opened])
        self._seat.keep()
        return self.next.digest, (self.next.place.step, self.next.place.round)

    def _open(self, part: int, body: bytes) -> Opened:
        """One group's sums, as t of its appliers signed them."""
        if part == self._part and self.opened is not None:
            return self.opened
        plan, (sealed, *claims) = self._plans[part], unframe(body) or [b""]
        seen, digests = Seen(), dict[str, bytes]()
        for data in claims:
            expected = plan.expect(Phase.APPLY, "client")
            header, applied = accept(data, plan.roster, expected, seen, Applied.decode)
            if header.sender in plan.cohort:
                digests[header.sender] = applied.digest
        needed = plan.shares_needed if plan.masked else 1
        [(digest, count)] = Counter(digests.values()).most_common(1) or [(b"", 0)]
        if count < needed:
            raise _not_agreed("too few signed this group's sums", part)
        opened, sender = self._unsealed(part, bytes(sealed))
        if opened is None or opened.digest != digest:
            raise _not_agreed("not the sums that its group signed", part, [sender])
        return opened

    def _unsealed(self, part: int, data: bytes) -> tuple[Opened | None, str]:
        """One group's sums, None where nothing is in the box; and whose box it is."""
        seat, plan = self._seat, self._plans[part]
        post = seat.wire.open(data, most=seat.plan.most(Phase.PART), role="client")
        asked = (post.header.phase, post.header.round, post.facts.get("part"))
        if asked != (Phase.PART, self.call.number, part) or post.sender not in plan.cohort:
            raise malformed("parts", "not what a client of the group sealed")
        try:
            data = open_with(seat.keyring.secret, post.rest, self._context(part))
            return decode_opened(data, self.form.shape), post.sender
        except RefusedError:
            return None, post.sender

    def _context(self, part: int) -> bytes:
        facts = canonical([self.call.document(), part])
        return b"secure-fl opened part 1|" + self._seat.plan.digest + facts


def forked(problem: str, value: object) -> RoundRefusedError:
    """Somebody shows different parties different things."""
    remedy = "stop, and compare transcripts: do not go on with this server"
    return RoundRefusedError(RoundReason.FORKED, problem, "state", value, remedy)


def _out_of_turn(problem: str, value: object) -> RoundRefusedError:
    return RoundRefusedError(RoundReason.OUT_OF_TURN, problem, "part", value, "follow the order")


def _not_agreed(problem: str, part: int, blamed: Sequence[str] = ()) -> RoundRefusedError:
    remedy = "send what t of its group signed, as another of them seals it"
    return RoundRefusedError(RoundReason.NOT_AGREED, problem, "part", part, remedy, blamed=blamed)
