"""The server's side of one round: adds what it cannot read, drops it, and holds no key.

    receive(bytes) takes one message of the running step and says why it was refused, if it was;
    advance() ends the step (everybody answered, or the deadline passed) and gives what is to be sent next.

Steps: ADVERTISE, SHARE, UPLOAD, AGREE, COUNT_SHARES, COUNTS, POOL_SHARES, POOLS, DIGESTS, DONE; protections skip what they have no use for.

Guarantee: memory is one sum of all blocks and one upload, whatever the number of clients; an upload is added whole or not at all; there
is one set of survivors, fixed when UPLOAD ends, for both openings; later uploads are refused.
Not covered: a server that does otherwise. What it gains then is what clients and key holder refuse to give (see there).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import numpy as np

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.envelope import Phase, Seen, open_envelope, read_header, sign_envelope
from secure_fl.secure_sum.identities import Identity
from secure_fl.secure_sum.key_holder import Opened, SumOpener
from secure_fl.secure_sum.masks import unmask_sum
from secure_fl.secure_sum.refusals import Reason, RefusedError
from secure_fl.secure_sum.round_book import KeyBook, check_cohort, need
from secure_fl.secure_sum.round_layers import Adder, ServerCipher, server_cipher
from secure_fl.secure_sum.round_messages import (
    Advertise,
    Agreement,
    Boxes,
    Counts,
    OpenRequest,
    Revealed,
    RoundReason,
    RoundRefusedError,
    Survivors,
    accept,
    frames,
    unframe,
)
from secure_fl.secure_sum.round_plan import RoundPlan
from secure_fl.secure_sum.round_shares import ShareBox
from secure_fl.secure_sum.round_steps import PHASES, Message, Refusal, Step, claimed


class RoundServer:
    """The server in one round.

    Args:
        plan: the round's.
        identity: of role `server`, named in the plan.
        cipher: from `server_cipher`, kept as long as the key; None for a new one.
    """

    def __init__(self, plan: RoundPlan, identity: Identity, *, cipher: ServerCipher | None = None) -> None:
        self._plan, self._identity = plan, identity
        self.step = Step.ADVERTISE if plan.masked else Step.UPLOAD
        self.refusals: list[Refusal] = []
        self.uploads: dict[str, bytes] = {}
        """SHA-256 over the signed headers of every accepted upload, which hold their bodies' hashes; for the transcript."""
        self.opened: Opened | None = None
        self.digests: dict[str, bytes] = {}
        self._adder = Adder(plan, cipher or server_cipher(plan))
        self._book = KeyBook.of(plan, {}) if not plan.masked else KeyBook(plan, ())
        self._seen, self._kept, self._keys = Seen(), dict[str, bytes](), dict[str, Advertise]()
        self._boxes: dict[int, dict[int, bytes]] = {}
        self._agreements: list[bytes] = []
        self._waiting = set(plan.cohort)
        self._survivors: tuple[int, ...] = ()
        self._dealers: tuple[int, ...] = ()
        self._view, self._passing, self._votes = b"", tuple[int, ...](), dict[str, tuple[int, ...]]()
        self._shares = ShareBox(plan, self._book, (), ())

    @property
    def waiting(self) -> frozenset[str]:
        """Who has not answered yet in this step."""
        return frozenset(self._waiting)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Names in U, once it is fixed."""
        return tuple(self._book.names[position] for position in self._survivors)

    @property
    def view(self) -> bytes:
        """32 bytes that bind plan, keys, dealers and U."""
        return self._view

    def receive(self, data: bytes | memoryview) -> str | None:
        """Take one message.

        Returns:
            None, or the reason it was refused for, which `refusals` keeps as well. Nothing is raised, whatever the bytes.
        """
        try:
            name = self._take(data)
        except SecureSumError as error:
            reason = str(getattr(error, "reason", Reason.MALFORMED))
            sender, phase = claimed(data)
            self.refusals.append(Refusal(sender, phase, reason, len(data)))
            return reason
        self._waiting.discard(name)
        return None

    def advance(self) -> list[Message]:
        """End the step. Whoever is still waited for has dropped out of it.

        Raises:
            RoundRefusedError: `too-few` are left, or `forked`; the round is over then, and nothing more is opened.
            SecureSumError: shares that do not fit together.
        """
        ends: dict[Step, Callable[[], list[Message]]] = {
            Step.ADVERTISE: self._end_advertise,
            Step.SHARE: self._end_share,
            Step.UPLOAD: self._end_upload,
            Step.AGREE: self._end_agree,
            Step.COUNT_SHARES: self._end_count_shares,
            Step.COUNTS: self._end_counts,
            Step.POOL_SHARES: self._end_pool_shares,
            Step.POOLS: self._end_pools,
            Step.DIGESTS: self._end_digests,
        }
        if self.step not in ends:
            raise RoundRefusedError(RoundReason.OUT_OF_TURN, "over", field="round", value=self._plan.round, remedy="begin the next")
        try:
            return ends[self.step]()
        except SecureSumError:
            self.step = Step.DONE
            raise

    # One message of each kind

    def _take(self, data: bytes | memoryview) -> str:
        takes: dict[Step, Callable[[bytes], str]] = {
            Step.ADVERTISE: self._take_keys,
            Step.SHARE: self._take_boxes,
            Step.AGREE: self._take_agreement,
            Step.COUNT_SHARES: self._take_shares,
            Step.COUNTS: self._take_counts,
            Step.POOL_SHARES: self._take_shares,
            Step.POOLS: self._take_digest,
            Step.DIGESTS: self._take_digest,
        }
        if self.step == Step.DONE:
            raise RefusedError(Reason.STALE, "the round is over", field="round", value=self._plan.round, remedy="take part in the next one")
        phase = claimed(data)[1]
        upload = phase == "upload"
        if upload and self.step > Step.UPLOAD:
            raise RefusedError(Reason.STALE, "uploads ended", field="upload", value=self._plan.round, remedy="take part in the next round")
        if upload != (self.step == Step.UPLOAD) and phase != "?":
            raise RefusedError(Reason.WRONG_PHASE, f"{self.step.name} is running", field="phase", value=len(data), remedy="wait for its turn")
        return self._take_upload(data) if self.step == Step.UPLOAD else takes[self.step](bytes(data))

    def _take_keys(self, data: bytes) -> str:
        header, keys = accept(data, self._plan.roster, self._plan.expect(Phase.ADVERTISE, "client"), self._seen, Advertise.decode)
        check_cohort(self._plan, header.sender)
        self._kept[header.sender], self._keys[header.sender] = data, keys
        return header.sender

    def _take_boxes(self, data: bytes) -> str:
        header, message = accept(data, self._plan.roster, self._plan.expect(Phase.SHARE, "client"), self._seen, Boxes.decode)
        position = self._position(header.sender)
        if message.dealers or tuple(reader for reader, _ in message.boxes) != self._book.neighbours(position):
            raise _malformed("boxes for others than its neighbours", header.sender)
        self._boxes[position] = dict(message.boxes)
        return header.sender

    def _take_upload(self, data: bytes | memoryview) -> str:
        plan, blocks = self._plan, self._plan.shape.blocks
        envelopes = unframe(memoryview(data))
        if len(envelopes) != blocks:
            raise RefusedError(Reason.WRONG_CHUNK, f"{blocks} blocks are expected", field="upload", value=len(envelopes), remedy="send all of them")
        sender, headers, vectors = read_header(envelopes[0]).sender, [], []
        expected = plan.expect(Phase.UPLOAD, "client", sender=sender, chunks=blocks)
        for block in range(blocks):
            header, body = open_envelope(envelopes[block], plan.roster, expected)
            if header.chunk != block:
                raise RefusedError(Reason.WRONG_CHUNK, f"block {block} is expected", field="chunk", value=header.chunk, remedy="send blocks in order")
            self._seen.check(header)
            headers.append(header)
            vectors.append(self._adder.read(block, body))
        check_cohort(plan, sender)
        position = self._position(sender)
        if plan.masked and position not in self._dealers:
            raise RefusedError(Reason.UNKNOWN_CLIENT, "dealt no shares", field="sender", value=sender, remedy="take part from the beginning")
        for block, (header, vector) in enumerate(zip(headers, vectors, strict=True)):
            self._adder.add(block, vector)
            self._seen.record(header)
        # every header holds its body's hash, so the headers' hash names the whole upload
        self.uploads[sender] = hashlib.sha256(b"".join(header.encode() for header in headers)).digest()
        self._survivors = tuple(sorted((*self._survivors, position)))
        return sender

    def _take_agreement(self, data: bytes) -> str:
        header, agreement = accept(data, self._plan.roster, self._plan.expect(Phase.AGREE, "client"), self._seen, Agreement.decode)
        if header.sender not in self.survivors or agreement != Agreement(self._view, len(self._survivors)):
            raise RoundRefusedError(RoundReason.NOT_AGREED, "not this round's set", field="view", value=header.sender, remedy="sign what was sent")
        self._kept[header.sender] = data
        return header.sender

    def _take_shares(self, data: bytes) -> str:
        phase = PHASES[self.step]
        header, message = accept(data, self._plan.roster, self._plan.expect(phase, "client"), self._seen, Revealed.decode)
        if header.sender not in self.survivors:
            raise RefusedError(Reason.UNKNOWN_CLIENT, "no survivor", field="sender", value=header.sender, remedy="take part in the next round")
        if not set(message.passing) <= set(range(self._plan.shape.pools)):
            raise _malformed("no such pool", header.sender)
        self._shares.take(self._position(header.sender), message.shares)
        self._votes[header.sender] = message.passing
        return header.sender

    def _take_counts(self, data: bytes) -> str:
        plan = self._plan
        expected = plan.expect(Phase.OPEN_COUNTS, "authority", sender=plan.authority)
        header, counts = accept(data, plan.roster, expected, self._seen, Counts.decode)
        if counts.view != self._view or counts.head.shape != (plan.shape.head_fields,):
            raise RoundRefusedError(RoundReason.SURVIVORS_SWITCHED, "counts of another set", field="counts", value=header.sender, remedy="use U")
        if counts.passing != plan.passing(counts.head, len(self._survivors)):
            raise RoundRefusedError(RoundReason.BELOW_MINIMUM, "counts and pools differ", field="pools", value=header.sender, remedy="none")
        self._kept[header.sender], self._passing = data, counts.passing
        return header.sender

    def _take_digest(self, data: bytes) -> str:
        role = "authority" if self.step == Step.POOLS else "client"
        header, digest = accept(data, self._plan.roster, self._plan.expect(Phase.APPLY, role), self._seen, bytes)
        if header.sender not in self._waiting or len(digest) != 32:
            raise _malformed("not a digest, or nobody asked for it", header.sender)
        self._kept[header.sender], self.digests[header.sender] = data, digest
        return header.sender

    # The ends of steps

    def _end_advertise(self) -> list[Message]:
        self._book = KeyBook.of(self._plan, self._keys)
        body = frames([self._kept[name] for name in self._book.names])
        return self._broadcast(Step.SHARE, self._book.names, Phase.ADVERTISE, body)

    def _end_share(self) -> list[Message]:
        book = self._book
        self._dealers = tuple(sorted(self._boxes))
        need(len(self._dealers), book.fewest, "dealers")
        messages = []
        for reader in self._dealers:
            near = sorted(self._boxes.keys() & set(book.neighbours(reader)))
            boxes = Boxes(self._dealers, tuple((dealer, self._boxes[dealer][reader]) for dealer in near))
            messages.append(self._message(book.names[reader], Phase.SHARE, boxes.encode()))
        self._boxes = {}
        self._begin(Step.UPLOAD, [book.names[dealer] for dealer in self._dealers])
        return messages

    def _end_upload(self) -> list[Message]:
        book, survivors = self._book, self._survivors
        need(len(survivors), book.fewest, "uploads")
        stranded = set(book.graph.stranded(survivors)) & set(self._dealers) if book.graph else set()
        if stranded:
            remedy = "discard the round: too many of their neighbours dropped out"
            raise RoundRefusedError(RoundReason.TOO_FEW, "clients' secrets cannot be opened", field="survivors", value=len(stranded), remedy=remedy)
        self._view = book.view(self._dealers, survivors)
        self._shares = ShareBox(self._plan, book, self._dealers, survivors)
        if not self._plan.masked:
            return self._after_count_shares()
        return self._broadcast(Step.AGREE, self.survivors, Phase.AGREE, Survivors(self._view, survivors).encode())

    def _end_agree(self) -> list[Message]:
        agreed = [name for name in self.survivors if name not in self._waiting]
        need(len(agreed), self._book.threshold, "agreements")
        self._agreements = [self._kept[name] for name in agreed]
        return self._broadcast(Step.COUNT_SHARES, agreed, Phase.OPEN_COUNTS, self._request(self._agreements))

    def _end_count_shares(self) -> list[Message]:
        self._shares.combine_counts()
        return self._after_count_shares()

    def _after_count_shares(self) -> list[Message]:
        plan, sum_of_heads = self._plan, self._finish(0)
        if plan.opener == "authority":
            return self._broadcast(Step.COUNTS, [plan.authority], Phase.OPEN_COUNTS, self._request([sum_of_heads, *self._agreements]))
        if plan.opener == "clients":
            return self._broadcast(Step.POOL_SHARES, self._alive(), Phase.OPEN_POOLS, self._request([sum_of_heads]))
        self._opener = SumOpener(plan, None)
        head, self._passing = self._opener.open_counts(sum_of_heads, len(self._survivors))
        if not plan.masked:
            return self._open_here()
        counts = self._sign(Phase.OPEN_COUNTS, Counts(self._view, head, self._passing).encode(), chunk=1, chunks=2)
        return self._broadcast(Step.POOL_SHARES, self._alive(), Phase.OPEN_POOLS, self._request([counts]))

    def _end_counts(self) -> list[Message]:
        plan = self._plan
        if plan.authority not in self._kept:
            raise RoundRefusedError(RoundReason.TOO_FEW, "did not answer", field="authority", value=plan.authority, remedy="discard the round")
        if not plan.masked:
            return self._to_authority()
        return self._broadcast(Step.POOL_SHARES, self._alive(), Phase.OPEN_POOLS, self._request([self._kept[plan.authority]]))

    def _end_pool_shares(self) -> list[Message]:
        plan = self._plan
        votes = Counter(passing for name, passing in self._votes.items() if name not in self._waiting)
        need(sum(votes.values()), self._book.threshold or 1, "shares")
        if plan.opener == "clients":
            self._passing = votes.most_common(1)[0][0]
        self.refusals += [
            Refusal(name, Phase.OPEN_POOLS.name.lower(), str(RoundReason.FORKED), 0)
            for name, passing in self._votes.items()
            if name not in self._waiting and passing != self._passing
        ]
        blocks = plan.shape.after_counts(self._passing)
        if plan.masked:
            self._shares.combine_blocks(blocks)
        if plan.opener == "authority":
            return self._to_authority()
        if plan.opener == "server":
            return self._open_here()
        appliers = self._alive()[: plan.appliers]
        body = frames([self._finish(block) for block in blocks])
        return self._broadcast(Step.DIGESTS, appliers, Phase.APPLY, body, chunks=2)

    def _end_pools(self) -> list[Message]:
        need(len(self.digests), 1, "authority")
        self.step = Step.DONE
        return []

    def _end_digests(self) -> list[Message]:
        need(len(self.digests), 1, "digests")
        if len(set(self.digests.values())) > 1:
            value = sorted(self.digests)
            raise RoundRefusedError(RoundReason.FORKED, "clients opened different sums", field="digests", value=value, remedy="discard the round")
        names = list(self.digests)
        messages = self._broadcast(Step.DONE, names, Phase.APPLY, frames([self._kept[name] for name in names]), chunk=1, chunks=2)
        self._waiting = set()
        return messages

    def _to_authority(self) -> list[Message]:
        bodies = [self._finish(block) for block in self._plan.shape.after_counts(self._passing)]
        return self._broadcast(Step.POOLS, [self._plan.authority], Phase.OPEN_POOLS, self._request(bodies))

    def _open_here(self) -> list[Message]:
        blocks = self._plan.shape.after_counts(self._passing)
        self.opened = self._opener.open_pools({block: self._finish(block) for block in blocks})
        self._begin(Step.DONE, [])
        return []

    def _finish(self, block: int) -> bytes:
        """Take the masks out of a block's sum."""
        if not self._plan.masked:
            return self._adder.finish(block)
        seeds, dropped = self._shares.seeds(block)
        masks = unmask_sum(self._plan.numbers(block), self_seeds=seeds, dropped=dropped, modulus=self._plan.layout.modulus)
        return self._adder.finish(block, np.ascontiguousarray(masks))

    def _alive(self) -> list[str]:
        """Survivors that answered in the last step they were asked in."""
        return [name for name in self.survivors if name not in self._waiting]

    def _request(self, evidence: list[bytes]) -> bytes:
        dropped = tuple(position for position in self._dealers if position not in self._survivors)
        return OpenRequest(self._view, self._survivors, dropped, tuple(evidence)).encode()

    def _position(self, name: str) -> int:
        if name not in self._book.names:
            raise RefusedError(Reason.UNKNOWN_CLIENT, "advertised no keys", field="sender", value=name, remedy="take part from the beginning")
        return self._book.names.index(name)

    def _begin(self, step: Step, names: list[str] | tuple[str, ...]) -> None:
        self.step, self._waiting = step, set(names)

    def _broadcast(
        self, step: Step, names: list[str] | tuple[str, ...], phase: Phase, body: bytes, *, chunk: int = 0, chunks: int = 1
    ) -> list[Message]:
        """One signed message, the same bytes for everybody, and the step in which they answer."""
        data = self._sign(phase, body, chunk=chunk, chunks=chunks)
        self._begin(step, names)
        return [Message(name, data) for name in names]

    def _message(self, name: str, phase: Phase, body: bytes) -> Message:
        return Message(name, self._sign(phase, body))

    def _sign(self, phase: Phase, body: bytes, *, chunk: int = 0, chunks: int = 1) -> bytes:
        return sign_envelope(self._identity, self._plan.header(phase, self._identity.name, chunk=chunk, chunks=chunks), body)


def _malformed(problem: str, sender: str) -> RefusedError:
    return RefusedError(Reason.MALFORMED, problem, field="body", value=sender, remedy="follow the protocol of this version")
