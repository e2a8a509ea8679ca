"""The key holder as a party of its own: messages in, messages out."""

from __future__ import annotations

from collections.abc import Callable

from secure_fl.secure_sum.envelope import Phase, Seen, read_header, sign_envelope
from secure_fl.secure_sum.identities import Identity
from secure_fl.secure_sum.key_holder import Opened, SumOpener, by_block
from secure_fl.secure_sum.refusals import Reason, RefusedError
from secure_fl.secure_sum.round_book import KeyBook, agreed_by, check_agreed
from secure_fl.secure_sum.round_counts import proved_head
from secure_fl.secure_sum.round_digests import NOTHING, Applied, ApplySums
from secure_fl.secure_sum.round_layers import HolderCipher
from secure_fl.secure_sum.round_messages import (
    Counts,
    OpenRequest,
    RoundReason,
    RoundRefusedError,
    accept,
    unframe,
)
from secure_fl.secure_sum.round_plan import RoundPlan
from secure_fl.secure_sum.round_sizes import check_size, most_bytes


class Authority:
    """The authority in one round.

    Args:
        plan: the round's, `key_holder="authority"`.
        identity: of role `authority`.
        cipher: from `holder_cipher`.
        applied: makes the next state of the opened sums; None where nobody keeps one.
    """

    def __init__(
        self,
        plan: RoundPlan,
        identity: Identity,
        cipher: HolderCipher,
        *,
        applied: ApplySums | None = None,
    ) -> None:
        self._plan, self._identity = plan, identity
        self._opener, self._seen = SumOpener(plan, cipher), Seen()
        self._applied, self._view = applied or (lambda _: NOTHING), b""
        self.opened: Opened | None = None

    def receive(self, data: bytes) -> list[bytes]:
        """Take one of the server's messages, and give the answer to it.

        A request for counts brings everybody's keys, the survivors' signatures and the proof of
        their counts: the answer is the signed counts. A request for pools brings the encrypted sums
        of those that pass: the answer is the signed digest of what was opened and of what follows
        from it; the sums are in `opened`.

        Raises:
            RefusedError: the message's reasons, or those of a message in it.
            RoundRefusedError: `not-agreed`, `survivors-switched`, `not-proved`, or those of
                `SumOpener`.
        """
        answers: dict[Phase, Callable[[OpenRequest], bytes]] = {
            Phase.OPEN_COUNTS: self._open_counts,
            Phase.OPEN_POOLS: self._open_pools,
        }
        phase = read_header(data).phase
        if phase not in answers:
            problem, remedy = "an authority is asked for openings only", "send it to its reader"
            raise RefusedError(
                Reason.WRONG_PHASE, problem, field="phase", value=phase.name, remedy=remedy
            )
        check_size(data, most_bytes(self._plan, phase, to_client=True))
        expected = self._plan.expect(phase, "server", sender=self._plan.server)
        request = accept(data, self._plan.roster, expected, self._seen, OpenRequest.decode)[1]
        return [answers[phase](request)]

    def _open_counts(self, request: OpenRequest) -> bytes:
        if self._plan.masked:
            book, proof = self._agreed(request)
        else:
            book, proof = KeyBook.of(self._plan, {}), request.evidence
        cipher, survivors = self._opener.cipher, request.survivors
        opened = proved_head(book, cipher, survivors, request.dropped, proof)
        head, passing = self._opener.open_counts(opened, len(survivors))
        self._view = request.view
        return self._sign(Phase.OPEN_COUNTS, Counts(request.view, head, passing).encode())

    def _open_pools(self, request: OpenRequest) -> bytes:
        if request.view != self._view:
            raise _switched("counts had another set", self._plan.round)
        wanted = self._plan.shape.after_counts(self._opener.passing)
        opened = self._opener.open_pools(by_block(wanted, request.evidence))
        state, place = self._applied(opened)
        self.opened = opened
        return self._sign(Phase.APPLY, Applied(opened.digest, state, place).encode())

    def _agreed(self, request: OpenRequest) -> tuple[KeyBook, tuple[bytes, ...]]:
        """Everybody's keys, and the rest of the evidence.

        Before that t holders of each dealer's shares are seen to have signed the set.
        """
        if len(request.evidence) < 2:
            remedy = "send everybody's keys and the survivors' signatures"
            raise RoundRefusedError(
                RoundReason.NOT_AGREED,
                "nobody signed",
                field="evidence",
                value=len(request.evidence),
                remedy=remedy,
            )
        plan, (keys, agreements, *proof) = self._plan, request.evidence
        book, survivors = KeyBook.read(plan, unframe(keys)), request.survivors
        dealers = sorted((*survivors, *request.dropped))
        known = set(dealers) <= set(range(len(book.names)))
        if not known or request.view != book.view(dealers, survivors):
            raise _switched("not the set of these keys", plan.round)
        signed = agreed_by(plan, unframe(agreements), request.view, len(survivors))
        check_agreed(book, survivors, dealers, signed)
        return book, tuple(proof)

    def _sign(self, phase: Phase, body: bytes) -> bytes:
        return sign_envelope(self._identity, self._plan.header(phase, self._identity.name), body)


def _switched(problem: str, round_number: int) -> RoundRefusedError:
    return RoundRefusedError(
        RoundReason.SURVIVORS_SWITCHED,
        problem,
        field="view",
        value=round_number,
        remedy="discard the round",
    )
