"""A client's side of one round: bytes in, bytes out.

    advertise() → keys → boxes → who stays → upload(vector)
                → survivors → counts → pools → sums → digests

It begins with `advertise`, and with `upload` where nothing is masked. Each later message goes to
`receive`, which tells by its header what it is. Once the client is `ready` it may be given its
vector.

Guarantee: thresholds are the plan's, whatever list the server shows. Nothing is revealed before,
for every client concerned, t of the m holders of its shares signed one set of survivors, and the
history that it was shown; of one client either self-mask seeds or the mask key, never both; a
pool's seeds only after its count was proved to reach the minimum; a second vector is never masked
for a round, nor a second sum opened of the answers to one question. Each message is answered once:
when it comes again, with the same bytes, also by a client that was killed meanwhile and made again
with its store, which refuses what it would have refused before.
Assumes: with a server that follows the protocol, fewer than t of any neighbourhood collude with it;
with one that lies and shows two survivor sets to two halves, fewer than 2t − m. The store is what
it was (see there).
Not covered: a client without a store that keeps states. Made again, it sends its stored upload and
leaves the openings to others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from secure_fl.crypto.envelope import Phase, Seen, head_bytes, read_header, sign_in_place
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.key_streams import Terms
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.block_codec import ClientCipher, HolderCipher, body_bytes, protect
from secure_fl.secure_sum.blocks import BlockVector, Integers
from secure_fl.secure_sum.counts import proved_head
from secure_fl.secure_sum.digests import NOTHING, Applied, ApplySums, applied_by, forks
from secure_fl.secure_sum.framing import empty_frames, unframe
from secure_fl.secure_sum.key_directory import (
    KeyBook,
    agreed_by,
    check_agreed,
    holders_that_signed,
    need,
)
from secure_fl.secure_sum.masks import UsedSeeds, mask_terms
from secure_fl.secure_sum.messages import (
    MASK_KEY,
    Agreement,
    Counts,
    OpenRequest,
    Revealed,
    RoundReason,
    Survivors,
    accept,
)
from secure_fl.secure_sum.opener import Opened, SumOpener, by_block
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.setup import ClientSetup
from secure_fl.secure_sum.state import RoundState
from secure_fl.secure_sum.steps import ClientStep
from secure_fl.secure_sum.store import RoundStore
from secure_fl.secure_sum.verified import Verified, question_of

_ROUNDS_OF_SEEDS = 4
"""Rounds in which no mask seed may come again."""


class RoundClient(ClientSetup):
    """One client in one round. Raises SecureSumError: the store is damaged, or another's.

    Args:
        plan: the round's.
        identity: whose client it is.
        cipher: from `client_cipher`; None where nothing is encrypted.
        holder: from `holder_cipher` under `clients`, else None.
        used: this client's record of spent seeds, one for the whole federation.
        store: what outlives the process; where it has a state of this round, the client goes on.
        randomness: uniform secret bytes.
        verified: what clients of one process checked already; a client of its own has none.
        applied: makes the next state of the opened sums; None where nobody keeps one. What it gives
            must outlive the process by itself; after a kill it may be asked once more, and gives
            the same.
        history: 32 bytes that name what it was shown of all that happened before.
    """

    def __init__(
        self,
        plan: RoundPlan,
        identity: Identity,
        *,
        cipher: ClientCipher | None = None,
        holder: HolderCipher | None = None,
        used: UsedSeeds | None = None,
        store: RoundStore | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
        verified: Verified | None = None,
        applied: ApplySums | None = None,
        history: Callable[[], bytes] = lambda: bytes(32),
    ) -> None:
        super().__init__(plan, identity, store=store, randomness=randomness, verified=verified)
        self._cipher, self._used, self._history = cipher, used or UsedSeeds(), history
        self._used.widen(_ROUNDS_OF_SEEDS * plan.shape.blocks)
        self._holder, self._opener = holder, self._opener_of(holder, self._state)
        self._apply_sums = applied or (lambda _: NOTHING)
        self.opened: Opened | None = None
        """What it opened, until it is made again."""
        self.confirmed: tuple[bytes, ...] = ()
        """Signed claims of the appliers that found what this client did, once compared."""
        state = self._state
        if state.step == ClientStep.READY and self.resend() is not None:
            state.step = ClientStep.UPLOADED  # it was killed before it could say so

    @property
    def ready(self) -> bool:
        """Whether it may be given its vector: nothing is left to be done before, none was given."""
        step = self._state.step
        return step == ClientStep.READY or (step == ClientStep.NEW and not self._plan.masked)

    @property
    def uploaded(self) -> bool:
        """Whether its upload is what it has said last."""
        return self._state.step == ClientStep.UPLOADED

    def receive(self, data: bytes) -> list[bytes]:
        """Take one of the server's messages, and give the answers to it, as its header says.

        The last message, come again, gets the answers that it got; who stays, once there is an
        upload, gets that. What is refused is refused for good; what is cut short, by a full disk or
        an interruption, has not come.

        Raises:
            RefusedError: the message's reasons, or those of a message in it.
            RoundRefusedError: why this client goes no further; it reveals nothing then.
            FileError: the answers cannot be stored; they are not given either.
        """
        take, state = self._take_of(data), self._state
        private = take == self._take_boxes
        question = question_of(data) if private else self._verified.name_of(data)
        if state.step != ClientStep.LEFT and question == state.question:
            if not self._stored:
                self._save()
            upload = self.resend() if state.step == ClientStep.UPLOADED else None
            return list(state.answers) if upload is None else [bytes(upload)]
        before = state.copy()
        try:
            answer = take(data)
        except SecureSumError:
            moved = (state.step, state.seen) != (before.step, before.seen)
            if state.step != ClientStep.NEW and moved:
                self._save()
            raise
        except BaseException:
            self._state, self._opener = before, self._opener_of(self._holder, before)
            raise
        answers = () if answer is None else (answer,)
        self._answer(question, answers)
        return list(answers)

    def upload(self, vector: BlockVector) -> memoryview:
        """Every block, masked and encrypted, each in an envelope of its own: read-only bytes that
        are stored first, and in memory once.

        Raises:
            RoundRefusedError: `out-of-turn`, or `already-begun`; then `resend` has the bytes, if
                there are any.
            SecureSumError: a vector that does not fit the shape; a value beyond its field or a seed
                spent before, after which nothing is stored and this client has dropped out.
        """
        plan, state = self._plan, self._state
        if not plan.masked and state.step != ClientStep.READY:
            self._turn(ClientStep.NEW, ClientStep.READY)
            self._begin()
            self._store.open(plan.question, plan.round)
        values = [vector.block(plan.shape, block) for block in range(plan.shape.blocks)]
        self._turn(ClientStep.READY, ClientStep.UPLOADED)
        upload = self._written(values)
        self._store.keep(plan.round, upload)
        self._pairs = {}
        self._save()
        return upload

    def resend(self) -> bytes | memoryview | None:
        """The very bytes of this round's upload, if it was made, in whatever life."""
        return self._store.kept(self._plan.round)

    def _take_of(self, data: bytes) -> Callable[[bytes], bytes | None]:
        """What a message is for, by its header, which is not checked here."""
        takes: dict[tuple[Phase, int], Callable[[bytes], bytes | None]] = {
            (Phase.ADVERTISE, 0): self._share,
            (Phase.SHARE, 0): self._take_boxes,
            (Phase.SHARE, 1): self._settle,
            (Phase.AGREE, 0): self._agree,
            (Phase.OPEN_COUNTS, 0): self._open_counts,
            (Phase.OPEN_POOLS, 0): self._open_pools,
            (Phase.APPLY, 0): self._apply,
            (Phase.APPLY, 1): self._confirm,
        }
        header = read_header(data)
        take = takes.get((header.phase, header.chunk))
        if take is None:
            problem, remedy = "no server sends this", "send it to its reader"
            raise RefusedError(Reason.WRONG_PHASE, problem, "phase", header.phase.name, remedy)
        return take

    def _opener_of(self, holder: HolderCipher | None, state: RoundState) -> SumOpener | None:
        """What opens sums, as far as a state has come; None where clients open none."""
        opener = SumOpener(self._plan, holder) if self._plan.opener == "clients" else None
        if opener is not None and state.head is not None:
            opener.open_counts(state.head, len(state.survivors))
        return opener

    def _written(self, values: list[Integers]) -> memoryview:
        plan, blocks = self._plan, self._plan.shape.blocks
        header = partial(plan.header, Phase.UPLOAD, self.name, chunks=blocks)
        headers = [header(chunk=block) for block in range(blocks)]
        heads = [head_bytes(header) for header in headers]
        sizes = [head + body_bytes(plan, block) for block, head in enumerate(heads)]
        data, places = empty_frames(sizes)
        for block, (fields, place) in enumerate(zip(values, places, strict=True)):
            terms = self._mask_terms(block) if plan.masked else ()
            protect(plan, self._cipher, block, fields, terms, place[heads[block] :])
            sign_in_place(self._identity, headers[block], place)
        return data.toreadonly()

    def _agree(self, data: bytes) -> bytes:
        """Sign the set of survivors, once. Raises RefusedError: the message's reasons, `duplicate`
        for a second set; RoundRefusedError: `too-few`, or `survivors-switched` for a set without
        this client or beyond the dealers.
        """
        message = self._from_server(data, Phase.AGREE, Survivors.decode)
        survivors, state = message.survivors, self._state
        if self._position not in survivors or not set(survivors) <= set(state.dealers):
            problem = "this client is missing, or a stranger is in it"
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, problem, "survivors", len(survivors))
        if message.view != self._book.view(state.dealers, survivors):
            problem = "keys, dealers or survivors differ from the server's"
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, problem, "view", self._plan.round)
        need(len(survivors), self._plan.survivors_needed, "survivors")
        self._turn(ClientStep.UPLOADED, ClientStep.AGREED)
        state.survivors, state.view = survivors, message.view
        return self._sign(
            Phase.AGREE, Agreement(message.view, len(survivors), self._history()).encode()
        )

    def _open_counts(self, data: bytes) -> bytes:
        """From the survivors' signatures: shares of dropped clients' mask keys, and of survivors'
        self-mask seeds of block 0.

        Raises:
            RefusedError: the message's reasons.
            RoundRefusedError: `survivors-switched`, `both-kinds-of-shares`, or `not-agreed`.
        """
        request, state = self._from_server(data, Phase.OPEN_COUNTS, OpenRequest.decode), self._state
        self._same_sets(request)
        agreed = self._agreed(data, request.evidence)
        near = {self._position, *self._book.neighbours(self._position)}
        check_agreed(self._book, near.intersection(state.dealers), agreed)
        self._turn(ClientStep.AGREED, ClientStep.COUNTED)
        if self._plan.noised_head:
            self._store.open(self._plan.question, self._plan.round)
        dropped = [(MASK_KEY, owner) for owner in request.dropped]
        wanted = [*dropped, *((0, owner) for owner in state.survivors)]
        return self._reveal(Phase.OPEN_COUNTS, (), wanted)

    def _open_pools(self, data: bytes) -> bytes:
        """From proved counts: shares of seeds of the shared block and of pools that pass.

        The counts are added up here from what the survivors signed; under `authority` its signed
        opening stands for that.

        Raises:
            RefusedError: the message's reasons, or the counts'.
            RoundRefusedError: `survivors-switched`, `both-kinds-of-shares`, `not-proved`, or
                `below-minimum` for a pool that may not pass.
        """
        request, state = self._from_server(data, Phase.OPEN_POOLS, OpenRequest.decode), self._state
        masked = self._plan.masked
        if masked:
            self._same_sets(request)
        self._turn(ClientStep.COUNTED if masked else ClientStep.UPLOADED, ClientStep.OPENED)
        state.head, passing = self._proved(data, request)
        state.survivors, state.view = request.survivors, request.view
        blocks = self._plan.shape.after_counts(passing) if masked else ()
        self._store.open(self._plan.question, self._plan.round)
        wanted = [(block, owner) for block in blocks for owner in state.survivors]
        return self._reveal(Phase.OPEN_POOLS, passing, wanted)

    def _apply(self, data: bytes) -> bytes:
        """Where clients open: from the sums of what may be opened, the signed digest of them.
        Raises RefusedError: the message's reasons, or a sum's; RoundRefusedError: `below-minimum`
        for a block too many.
        """
        bodies = self._from_server(data, Phase.APPLY, unframe, chunks=2)
        self._turn(ClientStep.OPENED, ClientStep.APPLIED)
        if self._opener is None:
            problem = "this client holds no key"
            raise self._leave(RoundReason.OUT_OF_TURN, problem, "sums", len(bodies))
        wanted = self._plan.shape.after_counts(self._opener.passing)
        sums, opener = by_block(wanted, bodies), self._opener
        name = b"sums", opener.named(read_header(data).body_hash)
        opened = self._verified.once(name, lambda: opener.open_pools(sums))
        state, place = self._apply_sums(opened)
        mine = Applied(opened.digest, state, place, data[: head_bytes(read_header(data))])
        self._state.mine, self.opened = mine, opened
        return self._sign(Phase.APPLY, mine.encode())

    def _confirm(self, data: bytes) -> None:
        """Compare everybody's signed claims with its own: what was opened, and what follows.

        A client that found something else in the same sums is wrong or lies, and ends nothing; one
        that shows other sums, signed by the server, proves that the server does.

        Raises:
            RefusedError: a message that is not a signed digest of this round.
            RoundRefusedError: `forked` where the server signed other sums, or fewer than half found
                what this client did.
        """
        digests = self._from_server(data, Phase.APPLY, unframe, chunk=1, chunks=2)
        mine = self._state.mine
        if mine is None:
            problem = "this client opened nothing"
            raise self._leave(RoundReason.OUT_OF_TURN, problem, "digests", len(digests))
        plan, name = self._plan, self._name("claims", data)
        claims = self._verified.once(name, lambda: applied_by(plan, digests))
        for sums, sender in claims.sums.items():
            if forks(plan, mine.sums, sums):
                problem = "another client was sent other sums"
                raise self._leave(RoundReason.FORKED, problem, "digest", sender)
        same = claims.by_claim.get(mine.claim, ())
        if 2 * len(same) <= claims.count:
            problem = "other clients opened other sums, or made another state of them"
            raise self._leave(RoundReason.FORKED, problem, "digests", claims.count - len(same))
        self.confirmed = same

    def _mask_terms(self, block: int) -> Terms:
        pairs = {other: row[block] for other, row in self._pairs.items()}
        seed = self._state.self_seeds[block]
        return mask_terms(own=self._position, self_seed=seed, pairs=pairs, used=self._used)

    def _same_sets(self, request: OpenRequest) -> None:
        """One set for both openings, and nobody in both parts of it."""
        state, alive = self._state, set(self._state.survivors)
        dropped = tuple(position for position in state.dealers if position not in alive)
        if set(request.survivors) & set(request.dropped):
            problem = "a client is asked for as survivor and as dropped"
            raise self._leave(RoundReason.BOTH_KINDS, problem, "request", len(request.dropped))
        signed = (state.view, state.survivors, dropped)
        if (request.view, request.survivors, request.dropped) != signed:
            problem = "not the set that was signed"
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, problem, "survivors", len(alive))

    def _agreed(self, data: bytes, envelopes: Sequence[bytes]) -> tuple[int, ...]:
        """Of each position, how many holders of its shares signed this client's set."""
        plan, book, state = self._plan, self._book, self._state
        count, history = len(state.survivors), self._history()

        def signed() -> tuple[int, ...]:
            names = agreed_by(plan, envelopes, state.view, count, history)
            return holders_that_signed(book, state.survivors, names)

        return self._verified.once(self._name("signed", data, state.view + history), signed)

    def _proved(self, data: bytes, request: OpenRequest) -> tuple[Integers, tuple[int, ...]]:
        """The head that the evidence proves, and the pools that pass by it."""
        plan, survivors, evidence = self._plan, request.survivors, request.evidence
        if self._opener is not None:
            book = self._book if plan.masked else KeyBook.of(plan, {})
            cipher, dropped = self._opener.cipher, request.dropped
            view = book.view(sorted((*survivors, *dropped)), survivors)
            head = self._verified.once(
                self._name("head", data, view),
                lambda: proved_head(book, cipher, survivors, dropped, evidence),
            )
            return self._opener.open_counts(head, len(survivors))
        expected = plan.expect(Phase.OPEN_COUNTS, "authority", sender=plan.authority)
        signed = evidence[0] if len(evidence) == 1 else b""
        counts = accept(signed, plan.roster, expected, Seen(), Counts.decode)[1]
        if counts.view != request.view or counts.head.shape != (plan.shape.head_fields,):
            problem = "counts of another set"
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, problem, "counts", plan.round)
        if counts.passing != plan.passing(counts.head, len(survivors)):
            problem = "counts and opened pools do not fit"
            raise self._leave(RoundReason.BELOW_MINIMUM, problem, "pools", counts.passing)
        return counts.head, counts.passing

    def _reveal(
        self, phase: Phase, passing: tuple[int, ...], wanted: Iterable[tuple[int, int]]
    ) -> bytes:
        held = ((place, owner, self._state.rows.get(owner)) for place, owner in wanted)
        shares = tuple(
            (place, owner, row[0 if place == MASK_KEY else 1 + place])
            for place, owner, row in held
            if row is not None
        )
        return self._sign(phase, Revealed(passing, shares).encode())
