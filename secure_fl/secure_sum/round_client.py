"""A client's side of one round: bytes in, bytes out.

    advertise() → keys → boxes → who stays → upload(vector) → survivors → counts → pools → sums → digests

It begins with `advertise`, and with `upload` where nothing is masked; each later message goes to `receive`, which tells by its header what
it is. Once the client is `ready` it may be given its vector.

Guarantee: thresholds are the plan's, whatever list the server shows. Nothing is revealed before, for every client concerned, t of the m
holders of its shares signed one set of survivors; of one client either the self-mask seeds or the mask key are revealed, never both; a
pool's seeds are revealed only after its count was proved to reach the minimum; a second vector is never masked for a round, nor a second
sum opened of the answers to one question.
Assumes: with a server that follows the protocol, fewer than t of any neighbourhood collude with it; with one that lies and shows two
survivor sets to two halves, fewer than 2t − m.
Not covered: a client that is resumed has lost its keys; it sends its stored upload again and leaves the openings to others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secure_fl.secure_sum.envelope import Phase, Seen, head_bytes, read_header, sign_envelope, sign_in_place
from secure_fl.secure_sum.identities import Identity
from secure_fl.secure_sum.key_holder import Opened, SumOpener, by_block, once
from secure_fl.secure_sum.masks import UsedSeeds, mask_terms, pair_seeds, self_seeds
from secure_fl.secure_sum.prg import Terms
from secure_fl.secure_sum.refusals import Reason, RefusedError
from secure_fl.secure_sum.round_book import KeyBook, Verified, agreed_by, check_agreed, need, seed_commitment
from secure_fl.secure_sum.round_counts import proved_head
from secure_fl.secure_sum.round_digests import NOTHING, Applied, ApplySums, forks
from secure_fl.secure_sum.round_layers import ClientCipher, HolderCipher, body_bytes, protect
from secure_fl.secure_sum.round_messages import (
    MASK_KEY,
    Advertise,
    Agreement,
    Boxes,
    Counts,
    Dealers,
    OpenRequest,
    Revealed,
    RoundReason,
    RoundRefusedError,
    Survivors,
    T,
    accept,
    empty_frames,
    unframe,
)
from secure_fl.secure_sum.round_plan import BlockVector, RoundPlan
from secure_fl.secure_sum.round_sizes import check_size, most_bytes
from secure_fl.secure_sum.round_steps import ClientStep
from secure_fl.secure_sum.round_store import MemoryStore, UploadStore
from secure_fl.secure_sum.shamir import split_many

_ROUNDS_OF_SEEDS = 4
"""Rounds in which no mask seed may come again."""


class RoundClient:
    """One client in one round.

    Args:
        plan: the round's.
        identity: whose client it is.
        cipher: from `client_cipher`; None where nothing is encrypted.
        holder: from `holder_cipher` under `clients`, else None.
        used: this client's record of spent seeds, one for the whole federation.
        store: what outlives the process.
        randomness: uniform secret bytes.
        verified: what clients of one process checked already; a client on its own machine has none.
        applied: makes the next state of the opened sums; None where nobody keeps one.
    """

    def __init__(
        self,
        plan: RoundPlan,
        identity: Identity,
        *,
        cipher: ClientCipher | None = None,
        holder: HolderCipher | None = None,
        used: UsedSeeds | None = None,
        store: UploadStore | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
        verified: Verified | None = None,
        applied: ApplySums | None = None,
    ) -> None:
        self._plan, self._identity, self._cipher, self._verified = plan, identity, cipher, verified
        self._used, self._store, self._randomness = used or UsedSeeds(), store or MemoryStore(), randomness
        self._used.widen(_ROUNDS_OF_SEEDS * plan.shape.blocks)
        self._seen, self._step = Seen(), ClientStep.NEW
        self._opener = SumOpener(plan, holder) if plan.opener == "clients" else None
        self._sealing, self._masking = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self._book, self._position = KeyBook(plan, ()), -1
        self._self_seeds: list[bytes] = []
        self._pairs: dict[int, list[bytes]] = {}
        self._box_keys: dict[int, bytes] = {}
        self._rows: dict[int, list[bytes]] = {}
        """Shares that this client holds, by owner: of the mask key, then of each block's seed. Boxes that do not open have none."""
        self._dealers: tuple[int, ...] = ()
        self._survivors: tuple[int, ...] = ()
        self._view, self._apply_sums = b"", applied or (lambda _: NOTHING)
        self._mine: Applied | None = None
        self.opened: Opened | None = None
        self.confirmed: tuple[bytes, ...] = ()
        """Signed claims of the appliers that found what this client did, once they were compared."""

    @property
    def name(self) -> str:
        """On the roster."""
        return self._identity.name

    @property
    def ready(self) -> bool:
        """Whether it may be given its vector: nothing is left to be done before, and none was given."""
        return self._step == (ClientStep.READY if self._plan.masked else ClientStep.NEW)

    def receive(self, data: bytes) -> list[bytes]:
        """Take one of the server's messages, and give the answers to it, as the header says what it is.

        Raises:
            RefusedError: the message's reasons, or those of a message in it.
            RoundRefusedError: why this client goes no further; it reveals nothing then.
        """
        header = read_header(data)
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
        take = takes.get((header.phase, header.chunk))
        if take is None:
            problem, remedy = "nothing that a server sends", "send it to its reader"
            raise RefusedError(Reason.WRONG_PHASE, problem, field="phase", value=header.phase.name, remedy=remedy)
        answer = take(data)
        return [] if answer is None else [answer]

    def advertise(self) -> bytes:
        """Two fresh public keys and the commitment to a fresh seed, signed.

        Raises:
            RoundRefusedError: `already-begun` for a round this client, or an earlier life of it, began; `already-opened` for one whose answers
                it has helped to open in another.
        """
        self._turn(ClientStep.NEW, ClientStep.ADVERTISED)
        self._store.begin(self._plan.round, self._plan.question)
        self._self_seeds = self_seeds(self._plan.shape.blocks, randomness=self._randomness)
        return self._sign(Phase.ADVERTISE, self._public().encode())

    def _share(self, data: bytes) -> bytes:
        """From everybody's signed keys: shares of this client's mask key and self-mask seeds, a box for each neighbour.

        Raises:
            RefusedError: a message or a client's keys in it.
            RoundRefusedError: `too-few` for a list shorter than the plan's n_min, or `survivors-switched` where its own keys are not in it.
        """
        book = KeyBook.read(self._plan, self._from_server(data, Phase.ADVERTISE, unframe), self._verified)
        if self.name not in book.names or book.keys[book.names.index(self.name)] != self._public():
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, "its own keys are not in the list", "keys", self.name)
        self._turn(ClientStep.ADVERTISED, ClientStep.SHARED)
        self._book, self._position = book, book.names.index(self.name)
        holders = book.holders(self._position)
        secrets = [self._masking.private_bytes_raw(), *self._self_seeds]
        shares = split_many(secrets, book.threshold, len(holders), randomness=self._randomness)
        boxes = []
        for place, holder in enumerate(holders):
            mine = [row[place] for row in shares]
            if holder == self._position:
                self._rows[holder] = [share.to_bytes() for share in mine]
                continue
            key = self._box_keys[holder] = book.box_key(self._position, self._sealing, holder)
            boxes.append((holder, book.close_box(key, self._position, holder, [share.to_bytes() for share in mine])))
        return self._sign(Phase.SHARE, Boxes((), tuple(boxes)).encode())

    def _take_boxes(self, data: bytes) -> bytes:
        """Who dealt shares, and the boxes for this client, which it opens: whose do not, or hold no shares.

        Raises:
            RefusedError: the message's reasons.
            RoundRefusedError: `too-few`, or `survivors-switched` where boxes and dealers do not fit.
        """
        message = self._from_server(data, Phase.SHARE, Boxes.decode)
        dealers, book = set(message.dealers), self._book
        near = dealers & set(book.neighbours(self._position))
        fits = self._position in dealers and dealers <= set(range(len(book.names))) and {dealer for dealer, _ in message.boxes} == near
        if not fits:
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, "boxes and dealers do not fit together", "dealers", len(dealers))
        self._turn(ClientStep.SHARED, ClientStep.DEALT)
        opened = ((dealer, book.open_box(self._box_keys[dealer], dealer, self._position, box)) for dealer, box in message.boxes)
        self._rows |= {dealer: row for dealer, row in opened if row is not None}
        self._stay(message.dealers)
        closed = tuple(sorted(near - self._rows.keys()))
        return self._sign(Phase.SHARE, Dealers(closed).encode(), chunk=1, chunks=2)

    def _settle(self, data: bytes) -> None:
        """The dealers that stay: without those who fell silent, or whose boxes do not open.

        Raises:
            RefusedError: the message's reasons.
            RoundRefusedError: `too-few`, or `survivors-switched` for other clients than the dealers.
        """
        positions = self._from_server(data, Phase.SHARE, Dealers.decode, chunk=1, chunks=2).positions
        self._turn(ClientStep.DEALT, ClientStep.READY)
        if self._position not in positions or not set(positions) <= set(self._dealers):
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, "this client is missing, or a stranger is in it", "dealers", len(positions))
        self._stay(positions)

    def upload(self, vector: BlockVector) -> memoryview:
        """Every block, masked and encrypted, each in an envelope of its own; stored before it is returned.

        All of it is written where it is sent from: a large body is in memory once, and what is stored are the bytes returned, read-only.

        Raises:
            RoundRefusedError: `out-of-turn`, or `already-begun`; then `resend` has the bytes, if there are any.
            SecureSumError: a vector that does not fit the shape; a value beyond its field or a seed spent before, after which nothing is stored
                and this client has dropped out of the round.
        """
        plan = self._plan
        if not plan.masked:
            self._turn(ClientStep.NEW, ClientStep.READY)
            self._store.begin(plan.round, plan.question)
            self._store.open(plan.question)
        values = [vector.block(plan.shape, block) for block in range(plan.shape.blocks)]
        self._turn(ClientStep.READY, ClientStep.UPLOADED)
        headers = [plan.header(Phase.UPLOAD, self.name, chunk=block, chunks=plan.shape.blocks) for block in range(plan.shape.blocks)]
        heads = [head_bytes(header) for header in headers]
        data, places = empty_frames([head + body_bytes(plan, block) for block, head in enumerate(heads)])
        for block, (fields, header, head, place) in enumerate(zip(values, headers, heads, places, strict=True)):
            terms = self._mask_terms(block) if plan.masked else ()
            protect(plan, self._cipher, block, fields, terms, place[head:])
            sign_in_place(self._identity, header, place)
        upload = data.toreadonly()
        self._store.keep(plan.round, upload)
        self._self_seeds, self._pairs = [], {}
        return upload

    def resend(self) -> bytes | memoryview | None:
        """The very bytes of this round's upload, if it was made; also by a client that was resumed."""
        return self._store.kept(self._plan.round)

    def _agree(self, data: bytes) -> bytes:
        """Sign the set of survivors, once.

        Raises:
            RefusedError: the message's reasons; `duplicate` for a second set.
            RoundRefusedError: `too-few`, or `survivors-switched` for a set without this client or beyond the dealers.
        """
        message = self._from_server(data, Phase.AGREE, Survivors.decode)
        survivors, book = message.survivors, self._book
        if self._position not in survivors or not set(survivors) <= set(self._dealers):
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, "this client is missing, or a stranger is in it", "survivors", len(survivors))
        if message.view != book.view(self._dealers, survivors):
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, "keys, dealers or survivors differ from the server's", "view", self._plan.round)
        need(len(survivors), self._plan.survivors_needed, "survivors")
        self._turn(ClientStep.UPLOADED, ClientStep.AGREED)
        self._survivors, self._view = survivors, message.view
        return self._sign(Phase.AGREE, Agreement(message.view, len(survivors)).encode())

    def _open_counts(self, data: bytes) -> bytes:
        """From the survivors' signatures: shares of dropped clients' mask keys, and of survivors' self-mask seeds of block 0.

        Raises:
            RefusedError: the message's reasons.
            RoundRefusedError: `survivors-switched`, `both-kinds-of-shares`, or `not-agreed`.
        """
        request = self._from_server(data, Phase.OPEN_COUNTS, OpenRequest.decode)
        self._same_sets(request)
        agreed = agreed_by(self._plan, request.evidence, self._view, len(self._survivors), self._verified)
        near = {self._position, *self._book.neighbours(self._position)}
        check_agreed(self._book, self._survivors, near.intersection(self._dealers), agreed)
        self._turn(ClientStep.AGREED, ClientStep.COUNTED)
        if self._plan.noised_head:
            self._store.open(self._plan.question)
        dropped = [(MASK_KEY, owner) for owner in request.dropped]
        return self._reveal(Phase.OPEN_COUNTS, (), [*dropped, *((0, owner) for owner in self._survivors)])

    def _open_pools(self, data: bytes) -> bytes:
        """From proved counts: shares of survivors' self-mask seeds of the shared block and of pools that pass.

        The counts are added up here from what the survivors signed; under `authority` its signed opening stands for that.

        Raises:
            RefusedError: the message's reasons, or the counts'.
            RoundRefusedError: `survivors-switched`, `both-kinds-of-shares`, `not-proved`, or `below-minimum` for a pool that may not pass.
        """
        request = self._from_server(data, Phase.OPEN_POOLS, OpenRequest.decode)
        if self._plan.masked:
            self._same_sets(request)
        self._turn(ClientStep.COUNTED if self._plan.masked else ClientStep.UPLOADED, ClientStep.OPENED)
        passing = self._passing(request)
        self._survivors, self._view = request.survivors, request.view
        blocks = self._plan.shape.after_counts(passing) if self._plan.masked else ()
        self._store.open(self._plan.question)
        return self._reveal(Phase.OPEN_POOLS, passing, [(block, owner) for block in blocks for owner in self._survivors])

    def _apply(self, data: bytes) -> bytes:
        """Where clients open: the sums of the blocks that may be opened; the signed digest of them and of what follows from them.

        Raises:
            RefusedError: the message's reasons, or a sum's.
            RoundRefusedError: `below-minimum` for a block too many.
        """
        bodies = self._from_server(data, Phase.APPLY, unframe, chunks=2)
        self._turn(ClientStep.OPENED, ClientStep.APPLIED)
        if self._opener is None:
            raise self._leave(RoundReason.OUT_OF_TURN, "this client holds no key", "sums", len(bodies))
        wanted = self._plan.shape.after_counts(self._opener.passing)
        sums, opener = by_block(wanted, bodies), self._opener
        name = opener.named(read_header(data).body_hash)
        opened = once(self._verified, name, lambda: opener.open_pools(sums))
        state, place = self._apply_sums(opened)
        self._mine = Applied(opened.digest, state, place, data[: head_bytes(read_header(data))])
        self.opened = opened
        return self._sign(Phase.APPLY, self._mine.encode())

    def _confirm(self, data: bytes) -> None:
        """Compare everybody's signed claims with its own: what was opened, the state that follows, its place.

        A client that found something else in the same sums is wrong or lies, and ends nothing; one that shows other sums, signed by the server,
        proves that the server does.

        Raises:
            RefusedError: a message that is not a signed digest of this round.
            RoundRefusedError: `forked` where the server signed other sums, or fewer than half found what this client did.
        """
        digests = self._from_server(data, Phase.APPLY, unframe, chunk=1, chunks=2)
        if self._mine is None:
            raise self._leave(RoundReason.OUT_OF_TURN, "this client opened nothing", "digests", len(digests))
        plan, seen, same = self._plan, Seen(), list[bytes]()
        for envelope in digests:
            header, applied = accept(envelope, plan.roster, plan.expect(Phase.APPLY, "client"), seen, Applied.decode)
            if forks(plan, self._mine.sums, applied.sums):
                raise self._leave(RoundReason.FORKED, "another client was sent other sums", "digest", header.sender)
            if applied.claim == self._mine.claim:
                same.append(envelope)
        if 2 * len(same) <= len(digests):
            problem = "other clients opened other sums, or made another state of them"
            raise self._leave(RoundReason.FORKED, problem, "digests", len(digests) - len(same))
        self.confirmed = tuple(same)

    def _mask_terms(self, block: int) -> Terms:
        pairs = {other: row[block] for other, row in self._pairs.items()}
        return mask_terms(own=self._position, self_seed=self._self_seeds[block], pairs=pairs, used=self._used)

    def _public(self) -> Advertise:
        commitment = seed_commitment(self._plan, self.name, self._self_seeds[0])
        return Advertise(self._sealing.public_key().public_bytes_raw(), self._masking.public_key().public_bytes_raw(), commitment)

    def _pair_seeds(self, near: Iterable[int]) -> dict[int, list[bytes]]:
        plan, own = self._plan, self._position
        return {
            other: pair_seeds(
                self._masking,
                self._book.masking_key(other),
                federation=plan.roster.federation,
                round_number=plan.round,
                blocks=plan.shape.blocks,
                low=min(own, other),
                high=max(own, other),
            )
            for other in near
        }

    def _same_sets(self, request: OpenRequest) -> None:
        """One set for both openings, and nobody in both parts of it."""
        dropped = tuple(position for position in self._dealers if position not in self._survivors)
        if set(request.survivors) & set(request.dropped):
            raise self._leave(RoundReason.BOTH_KINDS, "a client is asked for as survivor and as dropped", "request", len(request.dropped))
        if (request.view, request.survivors, request.dropped) != (self._view, self._survivors, dropped):
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, "not the set that was signed", "survivors", len(request.survivors))

    def _passing(self, request: OpenRequest) -> tuple[int, ...]:
        plan, survivors = self._plan, len(request.survivors)
        if self._opener is not None:
            book = self._book if plan.masked else KeyBook.of(plan, {})
            head = proved_head(book, self._opener.cipher, request.survivors, request.dropped, request.evidence, self._verified)
            return self._opener.open_counts(head, survivors)[1]
        evidence = request.evidence[0] if len(request.evidence) == 1 else b""
        expected = plan.expect(Phase.OPEN_COUNTS, "authority", sender=plan.authority)
        counts = accept(evidence, plan.roster, expected, Seen(), Counts.decode)[1]
        if counts.view != request.view or counts.head.shape != (plan.shape.head_fields,):
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, "counts of another set", "counts", plan.round)
        if counts.passing != plan.passing(counts.head, survivors):
            raise self._leave(RoundReason.BELOW_MINIMUM, "counts and opened pools do not fit", "pools", counts.passing)
        return counts.passing

    def _reveal(self, phase: Phase, passing: tuple[int, ...], wanted: Iterable[tuple[int, int]]) -> bytes:
        held = ((place, owner, self._rows.get(owner)) for place, owner in wanted)
        shares = tuple((place, owner, row[0 if place == MASK_KEY else 1 + place]) for place, owner, row in held if row is not None)
        return self._sign(phase, Revealed(passing, shares).encode())

    def _stay(self, dealers: tuple[int, ...]) -> None:
        """Go on with these dealers, among whom enough must be that this client can mask with and holds shares of."""
        near = set(dealers) & set(self._book.neighbours(self._position))
        need(len(dealers), self._plan.survivors_needed, "dealers")
        need(len(near & self._rows.keys()) + 1, self._book.threshold, "neighbours")
        self._dealers = dealers
        # while others still deal: an upload has only to be masked then
        self._pairs = {other: seeds for other, seeds in self._pairs.items() if other in near} or self._pair_seeds(near)

    def _from_server(self, data: bytes, phase: Phase, parse: Callable[[bytes], T], *, chunk: int = 0, chunks: int = 1) -> T:
        if self._step == ClientStep.LEFT:
            raise RoundRefusedError(
                RoundReason.OUT_OF_TURN, "this client left the round", field="phase", value=phase.name, remedy="begin another round"
            )
        check_size(data, most_bytes(self._plan, phase, to_client=True))
        expected = self._plan.expect(phase, "server", sender=self._plan.server, chunks=chunks)
        return accept(data, self._plan.roster, expected, self._seen, parse, chunk=chunk)[1]

    def _turn(self, before: ClientStep, after: ClientStep) -> None:
        if self._step != before:
            reason = RoundReason.ALREADY_BEGUN if self._step > before else RoundReason.OUT_OF_TURN
            raise RoundRefusedError(
                reason, f"{before.name.lower()} comes first, once", field="step", value=self._step.name.lower(), remedy="follow the order"
            )
        self._step = after

    def _leave(self, reason: RoundReason, problem: str, name: str, value: object) -> RoundRefusedError:
        self._step = ClientStep.LEFT
        return RoundRefusedError(reason, problem, field=name, value=value, remedy="this client leaves the round; ask who runs the server")

    def _sign(self, phase: Phase, body: bytes, *, chunk: int = 0, chunks: int = 1) -> bytes:
        return sign_envelope(self._identity, self._plan.header(phase, self.name, chunk=chunk, chunks=chunks), body)
