"""A client's keys and shares of one round: what comes before its vector. Nothing here depends on
what training gives, so all of it may be done ahead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secure_fl.crypto.envelope import Phase, Seen, sign_envelope
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.shares import split_many
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.key_directory import KeyBook, need, seed_commitment
from secure_fl.secure_sum.masks import self_seeds
from secure_fl.secure_sum.messages import (
    Advertise,
    Boxes,
    Dealers,
    RoundReason,
    RoundRefusedError,
    T,
    accept,
)
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.sizes import check_size, most_bytes
from secure_fl.secure_sum.state import RoundState, state_context
from secure_fl.secure_sum.steps import ClientStep
from secure_fl.secure_sum.store import MemoryStore, RoundStore, Sealed
from secure_fl.secure_sum.verified import Verified


class ClientSetup:
    """The first half of `RoundClient`, and how it keeps its state."""

    def __init__(
        self,
        plan: RoundPlan,
        identity: Identity,
        *,
        store: RoundStore | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
        verified: Verified | None = None,
    ) -> None:
        self._plan, self._identity, self._verified = plan, identity, verified or Verified()
        self._store, self._randomness = store or MemoryStore(), randomness
        self._context = state_context(plan, identity.name)
        saved = self._store.saved(plan.round, self._context)
        self._state = RoundState() if saved is None else RoundState.decode(saved)
        self._stored, self._book, self._position = True, KeyBook(plan, ()), -1
        self._pairs: dict[int, list[bytes]] = {}
        self._box_keys: dict[int, bytes] = {}
        if self._state.keys:
            self._know(KeyBook.of(plan, self._state.keys))
        if self._state.step in (ClientStep.DEALT, ClientStep.READY):
            self._stay(self._state.dealers)

    @property
    def name(self) -> str:
        """The client's name on the roster."""
        return self._identity.name

    @property
    def plan(self) -> RoundPlan:
        """What everybody agreed on before the round."""
        return self._plan

    def begin(self) -> list[bytes]:
        """What a client says first: its advertisement, again if it was killed after it. Nothing
        where nothing is masked, or where it is further already. Raises RoundRefusedError: as
        `advertise`.
        """
        early = self._state.step in (ClientStep.NEW, ClientStep.ADVERTISED)
        return [self.advertise()] if self._plan.masked and early else []

    def leave(self) -> None:
        """Throw away what it has of the round, for good: it takes part no more."""
        self._state.step = ClientStep.LEFT
        self._pairs, self._box_keys = {}, {}
        self._save()

    def advertise(self) -> bytes:
        """Two fresh public keys and the commitment to a fresh seed, signed; once a round.

        Raises:
            RoundRefusedError: `already-begun` for a round this client, or an earlier life of it,
                began and has lost the keys of; `already-opened` for one whose answers it has helped
                to open in another.
        """
        state = self._state
        if state.step == ClientStep.ADVERTISED and state.answers:
            return state.answers[0]
        self._turn(ClientStep.NEW, ClientStep.ADVERTISED)
        state.sealing, state.masking = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        state.self_seeds = self_seeds(self._plan.shape.blocks, randomness=self._randomness)
        state.answers = (self._sign(Phase.ADVERTISE, self._public().encode()),)
        self._begin()
        return state.answers[0]

    def _share(self, data: bytes) -> bytes:
        """From everybody's signed keys: shares of this client's secrets, a box for each neighbour.

        Raises:
            RefusedError: a message or a client's keys in it.
            RoundRefusedError: `too-few` for a list shorter than the plan's n_min, or
                `survivors-switched` where its own keys are not in it.
        """
        envelopes = self._from_server(data, Phase.ADVERTISE, unframe)
        name, state = self._name("book", data), self._state
        book = self._verified.once(name, lambda: KeyBook.read(self._plan, envelopes))
        keys = book.advertised
        if state.step == ClientStep.ADVERTISED and keys.get(self.name) != self._public():
            problem = "its own keys are not in the list"
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, problem, "keys", self.name)
        self._turn(ClientStep.ADVERTISED, ClientStep.SHARED)
        state.keys = keys
        self._know(book)
        holders, private = book.holders(self._position), state.masking
        assert private is not None
        secrets = [private.private_bytes_raw(), *state.self_seeds]
        count, randomness = len(holders), self._randomness
        shares = split_many(secrets, book.threshold, count, randomness=randomness)
        boxes = []
        for place, holder in enumerate(holders):
            mine = [row[place].to_bytes() for row in shares]
            if holder == self._position:
                state.rows[holder] = mine
                continue
            key = self._box_key(holder)
            boxes.append((holder, book.close_box(key, self._position, holder, mine)))
        return self._sign(Phase.SHARE, Boxes((), tuple(boxes)).encode())

    def _take_boxes(self, data: bytes) -> bytes:
        """Who dealt shares, and the boxes for this client: whose do not open, or hold no shares.
        Raises RefusedError: the message's reasons; RoundRefusedError: `too-few`, or
        `survivors-switched` where boxes and dealers do not fit.
        """
        message = self._from_server(data, Phase.SHARE, Boxes.decode, private=True)
        dealers, book, own = set(message.dealers), self._book, self._position
        near = dealers & set(book.neighbours(own)) if book.names else set()
        known = own in dealers and dealers <= set(range(len(book.names)))
        if not known or {dealer for dealer, _ in message.boxes} != near:
            problem = "boxes and dealers do not fit together"
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, problem, "dealers", len(dealers))
        self._turn(ClientStep.SHARED, ClientStep.DEALT)
        for dealer, box in message.boxes:
            row = book.open_box(self._box_key(dealer), dealer, own, box)
            if row is not None:
                self._state.rows[dealer] = row
        self._box_keys = {}
        self._stay(message.dealers)
        closed = tuple(sorted(near - self._state.rows.keys()))
        return self._sign(Phase.SHARE, Dealers(closed).encode(), chunk=1, chunks=2)

    def _settle(self, data: bytes) -> None:
        """The dealers that stay: without those who fell silent, or whose boxes do not open. Raises
        RefusedError: the message's reasons; RoundRefusedError: `too-few`, or `survivors-switched`
        for others than the dealers.
        """
        message = self._from_server(data, Phase.SHARE, Dealers.decode, chunk=1, chunks=2)
        positions = message.positions
        self._turn(ClientStep.DEALT, ClientStep.READY)
        if self._position not in positions or not set(positions) <= set(self._state.dealers):
            problem = "this client is missing, or a stranger is in it"
            raise self._leave(RoundReason.SURVIVORS_SWITCHED, problem, "dealers", len(positions))
        self._stay(positions)

    def _know(self, book: KeyBook) -> None:
        self._book, self._position = book, book.positions[self.name]

    def _stay(self, dealers: tuple[int, ...]) -> None:
        """Go on with these dealers: enough must be its neighbours whose shares it holds."""
        near = set(dealers) & set(self._book.neighbours(self._position))
        try:
            need(len(dealers), self._plan.survivors_needed, "dealers")
            need(len(near & self._state.rows.keys()) + 1, self._book.threshold, "neighbours")
        except RoundRefusedError:
            self._state.step = ClientStep.LEFT
            raise
        self._state.dealers = dealers
        # while others still deal: an upload has only to be masked then
        known = {other: seeds for other, seeds in self._pairs.items() if other in near}
        self._pairs = known or self._pair_seeds(near)

    def _public(self) -> Advertise:
        state = self._state
        assert state.sealing is not None
        assert state.masking is not None
        commitment = seed_commitment(self._plan, self.name, state.self_seeds[0])
        sealing, masking = state.sealing.public_key(), state.masking.public_key()
        return Advertise(sealing.public_bytes_raw(), masking.public_bytes_raw(), commitment)

    def _box_key(self, other: int) -> bytes:
        """The key of boxes to and from a neighbour, from when one is dealt until one comes back."""
        found = self._box_keys.pop(other, None)
        if found is None:
            assert self._state.sealing is not None
            found = self._book.box_key(self._position, self._state.sealing, other)
            self._box_keys[other] = found
        return found

    def _pair_seeds(self, near: Iterable[int]) -> dict[int, list[bytes]]:
        book, own, private = self._book, self._position, self._state.masking
        assert private is not None
        blocks = self._plan.shape.blocks
        return {other: book.pair_seeds(own, private, other, blocks) for other in near}

    # What both halves are made of

    def _from_server(
        self,
        data: bytes,
        phase: Phase,
        parse: Callable[[bytes], T],
        *,
        chunk: int = 0,
        chunks: int = 1,
        private: bool = False,
    ) -> T:
        """A message of the server's, opened; one that is not `private` goes to all clients."""
        if self._state.step == ClientStep.LEFT:
            problem, remedy = "this client left the round", "begin another round"
            raise RoundRefusedError(RoundReason.OUT_OF_TURN, problem, "phase", phase.name, remedy)
        check_size(data, most_bytes(self._plan, phase, to_client=True))
        plan, seen = self._plan, self._state.seen
        expected = plan.expect(phase, "server", sender=plan.server, chunks=chunks)
        if private:
            return accept(data, plan.roster, expected, seen, parse, chunk=chunk)[1]
        name = self._name(f"{phase} {chunk} of {chunks}", data)
        header, message = self._verified.message(
            name, lambda: accept(data, plan.roster, expected, Seen(), parse, chunk=chunk)
        )
        seen.check(header)
        seen.record(header)
        return message

    def _name(self, work: str, data: bytes, *more: bytes) -> tuple[bytes, ...]:
        """What names a kind of work on a message that goes to all clients of this round."""
        plan = self._plan
        facts = plan.digest, plan.roster.digest, plan.key_fingerprint, b"%d" % plan.round
        return work.encode(), *facts, self._verified.name_of(data), *more

    def _turn(self, before: ClientStep, after: ClientStep) -> None:
        step = self._state.step
        if step != before:
            reason = RoundReason.ALREADY_BEGUN if step > before else RoundReason.OUT_OF_TURN
            problem = f"{before.name.lower()} comes first, once"
            raise RoundRefusedError(reason, problem, "step", step.name.lower(), "follow the order")
        self._state.step = after

    def _leave(
        self, reason: RoundReason, problem: str, name: str, value: object
    ) -> RoundRefusedError:
        self._state.step = ClientStep.LEFT
        remedy = "this client leaves the round; ask who runs the server"
        return RoundRefusedError(reason, problem, name, value, remedy)

    def _sign(self, phase: Phase, body: bytes, *, chunk: int = 0, chunks: int = 1) -> bytes:
        header = self._plan.header(phase, self.name, chunk=chunk, chunks=chunks)
        return sign_envelope(self._identity, header, body)

    # What outlives a kill

    def _sealed(self) -> Sealed:
        return Sealed(self._context, self._state.encode)

    def _begin(self) -> None:
        try:
            self._store.begin(self._plan.round, self._plan.question, self._sealed())
        except BaseException:
            self._state = RoundState()  # nothing was begun
            raise

    def _save(self) -> None:
        self._state.spend()
        self._stored = False
        self._store.save(self._plan.round, self._sealed())
        self._stored = True

    def _answer(self, question: bytes, answers: tuple[bytes, ...]) -> None:
        """Keep the answers to a message, before they go out; `question`: its `question_of`."""
        self._state.question, self._state.answers = question, answers
        self._save()
