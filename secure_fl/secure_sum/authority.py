"""The key holder as a party of its own: messages in, messages out.

Guarantee: of a round it opens counts once, and pools once, after them, and of the answers to one
question one sum; a message that comes again is answered with the same bytes, also by an authority
that was killed and made again with its store.
Assumes, Not covered: as `SumOpener`; the store is what it was.
"""

from __future__ import annotations

from collections.abc import Callable

from secure_fl.crypto.envelope import Phase, read_header, sign_envelope
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.secure_sum.block_codec import HolderCipher
from secure_fl.secure_sum.counts import proved_head
from secure_fl.secure_sum.digests import NOTHING, Applied, ApplySums
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.key_directory import KeyBook, agreed_by, check_agreed, holders_that_signed
from secure_fl.secure_sum.messages import (
    Counts,
    OpenRequest,
    RoundReason,
    RoundRefusedError,
    accept,
)
from secure_fl.secure_sum.opener import Opened, SumOpener, by_block
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.sizes import check_size, most_bytes
from secure_fl.secure_sum.state import RoundState, state_context
from secure_fl.secure_sum.steps import ClientStep
from secure_fl.secure_sum.store import MemoryStore, RoundStore, Sealed
from secure_fl.secure_sum.verified import question_of


class Authority:
    """The authority in one round. Raises SecureSumError: the store is damaged, or another's.

    Args:
        plan: the round's, `key_holder="authority"`.
        identity: of role `authority`.
        cipher: from `holder_cipher`.
        store: what outlives the process; where it has a state of this round, it goes on.
        applied: makes the next state of the opened sums; None where nobody keeps one. It is called
            again where the answer could not be stored, and gives the same then.
    """

    def __init__(
        self,
        plan: RoundPlan,
        identity: Identity,
        cipher: HolderCipher,
        *,
        store: RoundStore | None = None,
        applied: ApplySums | None = None,
    ) -> None:
        self._plan, self._identity, self._store = plan, identity, store or MemoryStore()
        self._opener, self._applied = SumOpener(plan, cipher), applied or (lambda _: NOTHING)
        self._context = state_context(plan, identity.name)
        saved = self._store.saved(plan.round, self._context)
        self._state = RoundState() if saved is None else RoundState.decode(saved)
        if self._state.head is not None:
            self._opener.open_counts(self._state.head, len(self._state.survivors))
        self.opened: Opened | None = None
        """What it opened, until it is made again."""

    def receive(self, data: bytes) -> list[bytes]:
        """Take one of the server's messages, and give the answer to it.

        A request for counts brings everybody's keys, the survivors' signatures and the proof of
        their counts: the answer is the signed counts. A request for pools brings the encrypted sums
        of those that pass: the answer is the signed digest of what was opened and of what follows
        from it; the sums are in `opened`.

        Raises:
            RefusedError: the message's reasons, or those of a message in it.
            RoundRefusedError: `not-agreed`, `survivors-switched`, `not-proved`, `already-begun`,
                `already-opened`, or those of `SumOpener`.
            FileError: the answer cannot be stored; it is not given either.
        """
        answers: dict[Phase, Callable[[OpenRequest], bytes]] = {
            Phase.OPEN_COUNTS: self._open_counts,
            Phase.OPEN_POOLS: self._open_pools,
        }
        phase, state = read_header(data).phase, self._state
        if question_of(data) == state.question:
            self._store.save(self._plan.round, self._sealed())
            return list(state.answers)
        if phase not in answers:
            problem, remedy = "an authority is asked for openings only", "send it to its reader"
            raise RefusedError(Reason.WRONG_PHASE, problem, "phase", phase.name, remedy)
        check_size(data, most_bytes(self._plan, phase, to_client=True))
        expected = self._plan.expect(phase, "server", sender=self._plan.server)
        request = accept(data, self._plan.roster, expected, state.seen, OpenRequest.decode)[1]
        answer = answers[phase](request)
        state.question, state.answers = question_of(data), (answer,)
        self._store.save(self._plan.round, self._sealed())
        return [answer]

    def _open_counts(self, request: OpenRequest) -> bytes:
        book, proof = self._agreed(request)
        cipher, survivors, state = self._opener.cipher, request.survivors, self._state
        opened = proved_head(book, cipher, survivors, request.dropped, proof)
        if state.step == ClientStep.NEW:
            begun = RoundState(step=ClientStep.ADVERTISED)  # and nothing opened: not begun again
            sealed = Sealed(self._context, begun.encode)
            self._store.begin(self._plan.round, self._plan.question, sealed)
        head, passing = self._opener.open_counts(opened, len(survivors))
        state.head, state.survivors, state.view = head, survivors, request.view
        state.step = ClientStep.COUNTED
        if self._plan.noised_head:
            self._store.open(self._plan.question, self._plan.round)
        return self._sign(Phase.OPEN_COUNTS, Counts(request.view, head, passing).encode())

    def _open_pools(self, request: OpenRequest) -> bytes:
        if request.view != self._state.view:
            raise _switched("counts had another set", self._plan.round)
        if self._state.step == ClientStep.APPLIED:
            problem, remedy = "opened once a round", "begin another round"
            raise RoundRefusedError(RoundReason.OUT_OF_TURN, problem, "pools", "(hidden)", remedy)
        wanted = self._plan.shape.after_counts(self._opener.passing)
        bodies = by_block(wanted, request.evidence)
        self._store.open(self._plan.question, self._plan.round)
        opened = self._opener.open_pools(bodies)
        state, place = self._applied(opened)
        self._state.step, self.opened = ClientStep.APPLIED, opened
        return self._sign(Phase.APPLY, Applied(opened.digest, state, place).encode())

    def _agreed(self, request: OpenRequest) -> tuple[KeyBook, tuple[bytes, ...]]:
        """Everybody's keys, and the rest of the evidence. Before that t holders of each dealer's
        shares are seen to have signed the set.
        """
        if len(request.evidence) < 2:
            remedy = "send everybody's keys and the survivors' signatures"
            raise RoundRefusedError(
                RoundReason.NOT_AGREED, "nobody signed", "evidence", len(request.evidence), remedy
            )
        plan, (keys, agreements, *proof) = self._plan, request.evidence
        book, survivors = KeyBook.read(plan, unframe(keys)), request.survivors
        dealers = sorted((*survivors, *request.dropped))
        known = set(dealers) <= set(range(len(book.names)))
        if not known or request.view != book.view(dealers, survivors):
            raise _switched("not the set of these keys", plan.round)
        signed = agreed_by(plan, unframe(agreements), request.view, len(survivors))
        check_agreed(book, dealers, holders_that_signed(book, survivors, signed))
        return book, tuple(proof)

    def _sealed(self) -> Sealed:
        return Sealed(self._context, self._state.encode)

    def _sign(self, phase: Phase, body: bytes) -> bytes:
        return sign_envelope(self._identity, self._plan.header(phase, self._identity.name), body)


def _switched(problem: str, round_number: int) -> RoundRefusedError:
    remedy = "discard the round"
    return RoundRefusedError(RoundReason.SURVIVORS_SWITCHED, problem, "view", round_number, remedy)
