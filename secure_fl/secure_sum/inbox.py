"""What the server takes in during a round, message by message: sizes, headers and signatures first,
bodies after.

Guarantee: whatever the bytes, a message is taken whole or refused with a recorded word; what a
refusal costs does not grow with the message, nor the record of refusals with their number. An
upload is added whole or not at all.
Assumes: Ed25519 signatures cannot be forged, and the roster is the coordinator's.
Not covered: a sender that lies inside a message it signed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from secure_fl.crypto.envelope import Header, Phase, Seen, head_bytes, open_envelope, read_header
from secure_fl.crypto.identities import LONGEST_NAME, Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.block_codec import Adder, ServerCipher, server_cipher
from secure_fl.secure_sum.blocks import Integers
from secure_fl.secure_sum.dealt import DealtBoxes
from secure_fl.secure_sum.digests import Applied
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.journal import RoundJournal
from secure_fl.secure_sum.key_directory import KeyBook, check_cohort
from secure_fl.secure_sum.messages import (
    MASK_KEY,
    Advertise,
    Agreement,
    Boxes,
    Counts,
    Dealers,
    Revealed,
    RoundReason,
    RoundRefusedError,
    T,
    accept,
)
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.share_box import ShareBox
from secure_fl.secure_sum.sizes import box_bytes, check_size, most_bytes
from secure_fl.secure_sum.spool import Log
from secure_fl.secure_sum.steps import PHASES, Refusal, Step, claimed

_MOST_REFUSALS = 64


class RoundInbox:
    """The receiving half of `RoundServer`.

    Args:
        plan: the round's.
        identity: of role `server`, named in the plan.
        cipher: from `server_cipher`, kept as long as the key; None for a new one.
    """

    def __init__(
        self, plan: RoundPlan, identity: Identity, *, cipher: ServerCipher | None = None
    ) -> None:
        self._plan, self._identity = plan, identity
        self.step = Step.ADVERTISE if plan.masked else Step.UPLOAD
        self.refusals: list[Refusal] = []
        """The first of the round; `refused` counts all, by reason, so that whoever floods the
        server fills no memory.
        """
        self.refused = Counter[str]()
        self.left_out: tuple[str, ...] = ()
        """Dealers whose boxes did not open for enough others."""
        self.uploads: dict[str, bytes] = {}
        """SHA-256 over the signed headers of every accepted upload, which hold their bodies'
        hashes; for the transcript.
        """
        self.signed_uploads = Log()
        """Frames of the signed heads themselves, in the order of `uploads`, for others to check."""
        self.counts: tuple[int, ...] | None = None
        """Of pools, as far as a server reads them: in the open, under masks, or as an authority
        tells them.
        """
        self.applied: dict[str, Applied] = {}
        """What each applier says of the sums and of what follows from them."""
        self.signed: dict[str, bytes] = {}
        """The same as they signed it, for others to check."""
        self._adder = Adder(plan, cipher or server_cipher(plan))
        self._journal: RoundJournal | None = None
        self._seen, self._waiting, self._active = Seen(), set(plan.cohort), set[str]()
        self._survivors: tuple[int, ...] = ()
        self._names = frozenset[str]()
        """Of the survivors."""
        self._begin_setup()
        self._begin_opening()

    def _begin_setup(self) -> None:
        """Nothing is known yet of keys and dealt shares."""
        self._book = KeyBook(self._plan, ()) if self._plan.masked else KeyBook.of(self._plan, {})
        self._kept, self._kept_keys = dict[str, bytes](), dict[str, bytes]()
        self._keys: dict[str, Advertise] = {}
        self._taken = set[bytes]()
        self._boxes: DealtBoxes | None = None
        self._closed: dict[int, tuple[int, ...]] = {}
        self._dealers: tuple[int, ...] = ()

    def _begin_opening(self) -> None:
        """Nothing is known yet of what the survivors agree on and give out."""
        self._heads, self._arrived = Log(), list[int]()
        """Every survivor's signed envelope of block 0, and whose they are."""
        self._agreements: list[bytes] = []
        self._view, self._passing = b"", tuple[int, ...]()
        self._votes: dict[str, tuple[int, ...]] = {}
        self._shares = ShareBox(self._plan, self._book, (), ())
        self._sent = b""
        """The head of the message with the sums, which clients name with what they find in them."""

    @property
    def plan(self) -> RoundPlan:
        """What everybody agreed on before the round."""
        return self._plan

    @property
    def waiting(self) -> frozenset[str]:
        """Who has not answered yet in this step."""
        return frozenset(self._waiting)

    @property
    def survivors(self) -> tuple[str, ...]:
        """The clients whose uploads are in the sums, U, in order of name; final after UPLOAD."""
        return tuple(self._book.names[position] for position in self._survivors)

    @property
    def view(self) -> bytes:
        """32 bytes that bind plan, keys, dealers and U."""
        return self._view

    @property
    def passing(self) -> tuple[int, ...]:
        """Pools that are opened, once that is known."""
        return self._passing

    def receive(self, data: bytes | memoryview) -> str | None:
        """Take one message. Raises FileError: it cannot be written down; the round goes no further
        than after a kill.

        Returns:
            None, or the reason it was refused for, which `refusals` keeps as well. Nothing is
            raised, whatever the bytes.
        """
        try:
            name = self._take(data)
        except SecureSumError as error:
            reason = str(getattr(error, "reason", Reason.MALFORMED))
            sender, phase = claimed(data)
            self._record(Refusal(sender[:LONGEST_NAME], phase, reason, len(data)))
            return reason
        self._waiting.discard(name)
        if self._journal is not None and self.step != Step.UPLOAD:
            self._journal.take(bytes(data))
        return None

    def _record(self, refusal: Refusal) -> None:
        self.refused[refusal.reason] += 1
        if len(self.refusals) < _MOST_REFUSALS:
            self.refusals.append(refusal)

    def _take(self, data: bytes | memoryview) -> str:
        self._check_turn(data)
        takes: dict[Step, Callable[[bytes], str]] = {
            Step.ADVERTISE: self._take_keys,
            Step.SHARE: self._take_boxes,
            Step.SETTLE: self._take_closed,
            Step.AGREE: self._take_agreement,
            Step.COUNT_SHARES: self._take_shares,
            Step.COUNTS: self._take_counts,
            Step.POOL_SHARES: self._take_shares,
            Step.POOLS: self._take_digest,
            Step.DIGESTS: self._take_digest,
        }
        if self.step == Step.UPLOAD:
            return self._take_upload(data)
        return takes[self.step](bytes(data))

    def _check_turn(self, data: bytes | memoryview) -> None:
        """Refuse what comes too late, is too long or belongs to another step, as it claims."""
        if self.step == Step.DONE:
            raise self._late("the round is over", "round")
        phase = claimed(data)[1]
        upload = phase == "upload"
        if upload and self.step > Step.UPLOAD:
            raise self._late("uploads ended", "upload")
        check_size(data, most_bytes(self._plan, PHASES[self.step], to_client=False))
        if upload != (self.step == Step.UPLOAD) and phase != "?":
            problem = f"{self.step.name} is running"
            raise RefusedError(Reason.WRONG_PHASE, problem, "phase", len(data), "wait for its turn")

    def _late(self, problem: str, what: str) -> RefusedError:
        number, remedy = self._plan.round, "take part in the next round"
        return RefusedError(Reason.STALE, problem, what, number, remedy)

    def _take_keys(self, data: bytes) -> str:
        header, keys = self._accept(data, Phase.ADVERTISE, Advertise.decode)
        check_cohort(self._plan, header.sender)
        keys.check(header.sender)
        if not self._taken.isdisjoint({keys.sealing, keys.masking}):
            problem, remedy = "another client's key", "make keys of its own"
            raise RefusedError(Reason.DUPLICATE, problem, "keys", header.sender, remedy)
        self._taken |= {keys.sealing, keys.masking}
        self._kept[header.sender], self._keys[header.sender] = data, keys
        return header.sender

    def _take_boxes(self, data: bytes) -> str:
        header, message = self._accept(data, Phase.SHARE, Boxes.decode)
        position = self._position(header.sender)
        readers = tuple(reader for reader, _ in message.boxes)
        if message.dealers or readers != self._book.neighbours(position):
            raise _malformed("boxes for others than its neighbours", header.sender)
        if {len(box) for _, box in message.boxes} != {box_bytes(self._plan)}:
            # with a longer one its reader would be sent more than any message that it waits for
            problem, remedy = "boxes of another length", "a share of each secret"
            raise RefusedError(Reason.WRONG_LENGTH, problem, "boxes", header.sender, remedy)
        assert self._boxes is not None
        self._boxes.take(position, [box for _, box in message.boxes])
        return header.sender

    def _take_closed(self, data: bytes) -> str:
        header, message = self._accept(data, Phase.SHARE, Dealers.decode, chunk=1, chunks=2)
        position = self._position(header.sender)
        neighbours = set(self._book.neighbours(position))
        if position not in self._dealers or not set(message.positions) <= neighbours:
            raise _malformed("boxes of others than its neighbours", header.sender)
        self._closed[position] = message.positions
        return header.sender

    def _take_upload(self, data: bytes | memoryview) -> str:
        plan, blocks = self._plan, self._plan.shape.blocks
        envelopes = unframe(memoryview(data), blocks)
        sender, headers, vectors = read_header(envelopes[0]).sender, [], []
        expected = plan.expect(Phase.UPLOAD, "client", sender=sender, chunks=blocks)
        for block in range(blocks):
            header, body = open_envelope(envelopes[block], plan.roster, expected)
            if header.chunk != block:
                problem, remedy = f"block {block} is expected", "send blocks in order"
                raise RefusedError(Reason.WRONG_CHUNK, problem, "chunk", header.chunk, remedy)
            self._seen.check(header)
            headers.append(header)
            vectors.append(self._adder.read(block, body))
        check_cohort(plan, sender)
        position = self._position(sender)
        if plan.masked and position not in self._dealers:
            problem, remedy = "dealt no shares", "take part from the beginning"
            raise RefusedError(Reason.UNKNOWN_CLIENT, problem, "sender", sender, remedy)
        for block, (header, vector) in enumerate(zip(headers, vectors, strict=True)):
            self._adder.add(block, vector)
            self._seen.record(header)
        signed = zip(envelopes, map(head_bytes, headers), strict=True)
        self.signed_uploads.extend([frames([bytes(one[:head]) for one, head in signed])])
        # every header holds its body's hash, so the headers' hash names the whole upload
        self._heads.extend([bytes(envelopes[0])])
        self._arrived.append(position)
        whole = b"".join(header.encode() for header in headers)
        self.uploads[sender] = hashlib.sha256(whole).digest()
        self._survivors = tuple(sorted((*self._survivors, position)))
        return sender

    def _take_agreement(self, data: bytes) -> str:
        header, agreement = self._accept(data, Phase.AGREE, Agreement.decode)
        said = agreement.view, agreement.survivors
        if header.sender not in self._names or said != (self._view, len(self._survivors)):
            problem, remedy = "not this round's set", "sign what was sent"
            raise RoundRefusedError(RoundReason.NOT_AGREED, problem, "view", header.sender, remedy)
        self._kept[header.sender] = data
        return header.sender

    def _take_shares(self, data: bytes) -> str:
        phase = PHASES[self.step]
        header, message = self._accept(data, phase, Revealed.decode)
        if header.sender not in self._names:
            problem, remedy = "no survivor", "take part in the next round"
            raise RefusedError(Reason.UNKNOWN_CLIENT, problem, "sender", header.sender, remedy)
        if not set(message.passing) <= set(range(self._plan.shape.pools)):
            raise _malformed("no such pool", header.sender)
        places = self._plan.shape.after_counts(message.passing)
        if self.step == Step.COUNT_SHARES:
            places = (MASK_KEY, 0)
        self._shares.take(self._position(header.sender), message.shares, places)
        self._votes[header.sender] = message.passing
        return header.sender

    def _take_counts(self, data: bytes) -> str:
        plan = self._plan
        who = "authority", plan.authority
        header, counts = self._accept(data, Phase.OPEN_COUNTS, Counts.decode, *who)
        if counts.view != self._view or counts.head.shape != (plan.shape.head_fields,):
            problem = "counts of another set"
            raise RoundRefusedError(
                RoundReason.SURVIVORS_SWITCHED, problem, "counts", header.sender, "use U"
            )
        if counts.passing != plan.passing(counts.head, len(self._survivors)):
            raise RoundRefusedError(
                RoundReason.BELOW_MINIMUM, "counts and pools differ", "pools", header.sender, "none"
            )
        self._kept[header.sender], self._passing = data, counts.passing
        self._told(counts.head)
        return header.sender

    def _told(self, head: Integers) -> None:
        if self._plan.shape.counted:
            self.counts = tuple(int(count) for count in head[: self._plan.shape.pools])

    def _take_digest(self, data: bytes) -> str:
        role = "authority" if self.step == Step.POOLS else "client"
        header, applied = self._accept(data, Phase.APPLY, Applied.decode, role)
        if header.sender not in self._waiting or applied.sums != self._sent:
            problem = "a digest that nobody asked for, or of sums that were not sent"
            raise _malformed(problem, header.sender)
        self.signed[header.sender] = data
        self.applied[header.sender] = replace(applied, sums=self._sent)  # one object for all
        return header.sender

    def _accept(
        self,
        data: bytes,
        phase: Phase,
        parse: Callable[[bytes], T],
        role: str = "client",
        sender: str | None = None,
        *,
        chunk: int = 0,
        chunks: int = 1,
    ) -> tuple[Header, T]:
        expected = self._plan.expect(phase, role, sender=sender, chunks=chunks)
        return accept(data, self._plan.roster, expected, self._seen, parse, chunk=chunk)

    def _position(self, name: str) -> int:
        position = self._book.positions.get(name)
        if position is None:
            remedy = "take part from the beginning"
            raise RefusedError(Reason.UNKNOWN_CLIENT, "advertised no keys", "sender", name, remedy)
        return position


def _malformed(problem: str, sender: str) -> RefusedError:
    remedy = "follow the protocol of this version"
    return RefusedError(Reason.MALFORMED, problem, "body", sender, remedy)
