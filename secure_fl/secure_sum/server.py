"""The server's side of one round: adds what it cannot read, drops it, and holds no key.

    receive(bytes) takes one message of the running step and says why it was refused, if it was;
    advance() ends the step (everybody answered, or the deadline passed) and gives what is to be
    sent next.

Steps: ADVERTISE, SHARE, SETTLE, UPLOAD, AGREE, COUNT_SHARES, COUNTS, POOL_SHARES, POOLS, DIGESTS,
DONE; protections skip what they have no use for.

Guarantee: memory is one sum of all blocks and one upload, and of each client the few bytes that
prove its counts; an upload is added whole or not at all; there is one set of survivors, fixed when
UPLOAD ends, for both openings; later uploads are refused. Sizes, headers and signatures are checked
before bodies. A client whose keys or boxes are of no use is left out, and the round goes on; where
the round cannot, the error names who made it fail, as far as can be told
(`RoundRefusedError.blamed`). With a journal, a server that was killed and made again goes on where
it was, and sends the same bytes.
Assumes: identities on the roster are their owners' alone.
Not covered: a server that does otherwise. What it gains then is what clients and key holder refuse
to give (see there).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from secure_fl.crypto.envelope import Phase, Seen, sign_envelope
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.block_codec import open_sum
from secure_fl.secure_sum.dealt import DealtBoxes
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.inbox import RoundInbox
from secure_fl.secure_sum.journal import RoundJournal, Sums
from secure_fl.secure_sum.key_directory import KeyBook, need
from secure_fl.secure_sum.masks import unmask_sum
from secure_fl.secure_sum.messages import (
    CountProof,
    Dealers,
    OpenRequest,
    RoundReason,
    RoundRefusedError,
    Survivors,
)
from secure_fl.secure_sum.share_box import ShareBox, without_shares
from secure_fl.secure_sum.spool import Log
from secure_fl.secure_sum.steps import Message, Refusal, Step


class RoundServer(RoundInbox):
    """The server in one round; made as `RoundInbox` is."""

    def resume(
        self, journal: RoundJournal, ends: Callable[[], None] = lambda: None
    ) -> list[Message]:
        """Write down from now on what is needed after a kill; take up what a journal has already.
        Raises SecureSumError: the journal is damaged, another plan's, or of a round that failed.

        Args:
            ends: called before each step ends once more, as whoever calls `advance` would know.

        Returns:
            The messages that went out last: whoever did not get one gets it now, and answers;
            whoever did answers as before, or is refused as repeating itself. Empty for a new round.
        """
        messages = list[Message]()
        for data in journal.entries():
            if data is not None:
                self._waiting.discard(self._take(data))
                continue
            if self.step == Step.UPLOAD:
                self._take_up(journal.sums())
            ends()
            messages = self._end()
        self._journal = journal
        return messages

    def advance(self) -> list[Message]:
        """End the step. Whoever is still waited for has dropped out of it.

        Raises:
            RoundRefusedError: `too-few` are left, or `forked`; the round is over then, and nothing
                more is opened.
            SecureSumError: shares that do not fit together.
            FileError: what went before cannot be written down.
        """
        if self._journal is not None and self.step != Step.DONE:
            if self.step == Step.UPLOAD:
                self._journal.keep(self._sums())
            self._journal.end()
        return self._end()

    def _end(self) -> list[Message]:
        ends: dict[Step, Callable[[], list[Message]]] = {
            Step.ADVERTISE: self._end_advertise,
            Step.SHARE: self._end_share,
            Step.SETTLE: self._end_settle,
            Step.UPLOAD: self._end_upload,
            Step.AGREE: self._end_agree,
            Step.COUNT_SHARES: self._end_count_shares,
            Step.COUNTS: self._end_counts,
            Step.POOL_SHARES: self._end_pool_shares,
            Step.POOLS: self._end_pools,
            Step.DIGESTS: self._end_digests,
        }
        if self.step not in ends:
            raise RoundRefusedError(
                RoundReason.OUT_OF_TURN, "over", "round", self._plan.round, "begin the next"
            )
        try:
            return ends[self.step]()
        except SecureSumError:
            self.step = Step.DONE
            raise

    def _sums(self) -> Sums:
        heads, signed = self._signed(), dict(zip(self.uploads, self.signed_uploads, strict=True))
        frames_of = tuple(signed[name] for name in self.survivors)
        return Sums(self._survivors, dict(self.uploads), heads, frames_of, self._adder.words())

    def _signed(self) -> tuple[bytes, ...]:
        """Every survivor's signed envelope of block 0, in order."""
        heads = dict(zip(self._arrived, self._heads, strict=True))
        return tuple(heads[position] for position in self._survivors)

    def _take_up(self, sums: Sums) -> None:
        self._survivors = sums.survivors
        self.uploads = {name: sums.uploads[name] for name in self.survivors}
        self._heads, self._arrived = Log(), list(sums.survivors)
        self._heads.extend(sums.heads)
        self.signed_uploads = Log()
        self.signed_uploads.extend(sums.signed)
        self._adder.take_up(sums.words, len(sums.survivors))
        self._waiting -= set(sums.uploads)

    # The ends of steps

    def _end_advertise(self) -> list[Message]:
        plan, book = self._plan, KeyBook.of(self._plan, self._keys)
        body = frames([self._kept[name] for name in book.names])
        self._kept_keys = dict(self._kept) if plan.opener == "authority" else {}
        self._book, self._kept, self._keys, self._taken = book, {}, {}, set()
        self._boxes = DealtBoxes(book)
        return self._broadcast(Step.SHARE, book.names, Phase.ADVERTISE, body)

    def _end_share(self) -> list[Message]:
        book, boxes = self._book, self._boxes
        assert boxes is not None
        self._dealers = tuple(sorted(boxes.dealers))
        need(len(self._dealers), self._plan.survivors_needed, "dealers")
        names = [book.names[dealer] for dealer in self._dealers]
        messages = boxes.messages(self._identity, self._dealers)
        self._begin(Step.SETTLE, names)
        return messages

    def _end_settle(self) -> list[Message]:
        """Say who stays: all dealers that answered, and whose boxes open for t of their holders.

        A dealer that others complain of is left out where too few of its holders have its shares;
        who complains of most stands for those it complains of.
        """
        book, silent = self._book, self._waiting
        gone = without_shares(book, self._dealers, self._closed)
        self.left_out = tuple(book.names[position] for position in sorted(gone))
        for name in self.left_out:
            self._record(Refusal(name, "share", str(RoundReason.BOXES_CLOSED), 0))
        self._dealers = tuple(
            position
            for position in self._dealers
            if position not in gone and book.names[position] not in silent
        )
        need(len(self._dealers), self._plan.survivors_needed, "dealers", self.left_out)
        names = [book.names[position] for position in self._dealers]
        body = Dealers(self._dealers).encode()
        return self._broadcast(Step.UPLOAD, names, Phase.SHARE, body, chunk=1, chunks=2)

    def _end_upload(self) -> list[Message]:
        book, survivors = self._book, self._survivors
        need(len(survivors), self._plan.survivors_needed, "uploads")
        self._check_stranded(survivors)
        self._active = set(self.survivors)
        self._names = frozenset(self.survivors)
        self._view = book.view(self._dealers, survivors)
        tags = self._boxes.tags if self._boxes else None
        self._shares = ShareBox(self._plan, book, self._dealers, survivors, tags, self._closed)
        if not self._plan.masked:
            return self._after_count_shares()
        body = Survivors(self._view, survivors).encode()
        return self._broadcast(Step.AGREE, self.survivors, Phase.AGREE, body)

    def _check_stranded(self, alive: Sequence[int]) -> None:
        """Refuse to go on where the secrets of some dealer have fewer than t holders among
        these clients.
        """
        graph = self._book.graph
        stranded = set(graph.stranded(alive) if graph else ()) & set(self._dealers)
        if stranded:
            problem = "clients' secrets cannot be opened"
            remedy = "discard the round: too many of their neighbours dropped out"
            raise RoundRefusedError(
                RoundReason.TOO_FEW, problem, "survivors", len(stranded), remedy
            )

    def _end_agree(self) -> list[Message]:
        agreed = self._alive()
        self._check_stranded([self._book.positions[name] for name in agreed])
        agreements, self._kept = [self._kept[name] for name in agreed], {}
        self._agreements = agreements if self._plan.opener == "authority" else []
        body = self._request(agreements)
        return self._broadcast(Step.COUNT_SHARES, agreed, Phase.OPEN_COUNTS, body)

    def _end_count_shares(self) -> list[Message]:
        self._shares.combine_counts()
        return self._after_count_shares()

    def _after_count_shares(self) -> list[Message]:
        plan, proof = self._plan, self._proof()
        self._heads, self._arrived = Log(), []
        if plan.parameters is None and plan.shape.counted:
            with suppress(SecureSumError):  # clients say why, and whose fault it is
                self._told(open_sum(plan, None, 0, self._finish(0), len(self._survivors)))
        if plan.opener == "authority":
            keys = frames([self._kept_keys[name] for name in self._book.names])
            body = self._request([keys, frames(self._agreements), *proof])
            return self._broadcast(Step.COUNTS, [plan.authority], Phase.OPEN_COUNTS, body)
        return self._ask_pool_shares(proof)

    def _ask_pool_shares(self, evidence: Sequence[bytes]) -> list[Message]:
        """Of survivors, with what shows the counts to be true."""
        body = self._request(evidence)
        return self._broadcast(Step.POOL_SHARES, self._alive(), Phase.OPEN_POOLS, body)

    def _proof(self) -> tuple[bytes, ...]:
        """What shows the counts to be the survivors' own."""
        heads = self._signed()
        if not self._plan.masked:
            return CountProof(heads).evidence()
        known = self._shares.seeds(0)[0]
        seeds = tuple(known[position] for position in self._survivors)
        return CountProof(heads, seeds, tuple(self._shares.mask_keys.values())).evidence()

    def _end_counts(self) -> list[Message]:
        plan = self._plan
        if plan.authority not in self._kept:
            remedy = "discard the round"
            raise RoundRefusedError(
                RoundReason.TOO_FEW, "did not answer", "authority", plan.authority, remedy
            )
        return self._ask_pool_shares([self._kept[plan.authority]])

    def _end_pool_shares(self) -> list[Message]:
        plan = self._plan
        said = {name: vote for name, vote in self._votes.items() if name not in self._waiting}
        votes = Counter(said.values())
        need(sum(votes.values()), self._book.threshold or 1, "shares", self._shares.liars)
        if plan.opener == "clients":
            self._passing = votes.most_common(1)[0][0]
        for name, passing in said.items():
            if passing != self._passing:
                self._record(Refusal(name, "open_pools", str(RoundReason.FORKED), 0))
        blocks = plan.shape.after_counts(self._passing)
        if plan.masked:
            self._shares.combine_blocks(blocks)
        sums = [self._finish(block) for block in blocks]
        if plan.opener == "authority":
            body = self._request(sums)
            return self._broadcast(Step.POOLS, [plan.authority], Phase.OPEN_POOLS, body)
        appliers, body = self._alive()[: plan.appliers], frames(sums)
        messages = self._broadcast(Step.DIGESTS, appliers, Phase.APPLY, body, chunks=2)
        self._sent = bytes(messages[0].data[: -len(body)]) if messages else b""
        return messages

    def _end_pools(self) -> list[Message]:
        need(len(self.applied), 1, "authority")
        self.step = Step.DONE
        return []

    def _end_digests(self) -> list[Message]:
        need(len(self.applied), 1, "digests")
        claims = Counter(applied.claim for applied in self.applied.values())
        [(claim, most)] = claims.most_common(1)
        if 2 * most <= len(self.applied):
            problem = "clients opened different sums, or made different states of them"
            raise RoundRefusedError(
                RoundReason.FORKED, problem, "digests", sorted(self.applied), "discard the round"
            )
        for name, applied in self.applied.items():
            if applied.claim != claim:
                self._record(Refusal(name, "apply", str(RoundReason.FORKED), 0))
        body, names = frames(list(self.signed.values())), list(self.signed)
        messages = self._broadcast(Step.DONE, names, Phase.APPLY, body, chunk=1, chunks=2)
        self._waiting = set()
        return messages

    def _finish(self, block: int) -> bytes:
        """Take the masks out of a block's sum."""
        if not self._plan.masked:
            return self._adder.finish(block)
        seeds, dropped = self._shares.seeds(block)
        numbers, modulus = self._plan.numbers(block), self._plan.layout.modulus
        masks = unmask_sum(numbers, self_seeds=seeds, dropped=dropped, modulus=modulus)
        return self._adder.finish(block, np.ascontiguousarray(masks))

    def _alive(self) -> list[str]:
        """Survivors that have answered every time they were asked."""
        self._active -= self._waiting
        return [name for name in self.survivors if name in self._active]

    def _request(self, evidence: Sequence[bytes]) -> bytes:
        dropped = tuple(position for position in self._dealers if position not in self._survivors)
        return OpenRequest(self._view, self._survivors, dropped, tuple(evidence)).encode()

    def _begin(self, step: Step, names: list[str] | tuple[str, ...]) -> None:
        self.step, self._waiting = step, set(names)
        self._seen = Seen()  # what belongs to a step before is refused as that

    def _broadcast(
        self,
        step: Step,
        names: list[str] | tuple[str, ...],
        phase: Phase,
        body: bytes,
        *,
        chunk: int = 0,
        chunks: int = 1,
    ) -> list[Message]:
        """One signed message, the same bytes for everybody, and the step in which they answer."""
        data = self._sign(phase, body, chunk=chunk, chunks=chunks)
        self._begin(step, names)
        return [Message(name, data) for name in names]

    def _sign(self, phase: Phase, body: bytes, *, chunk: int = 0, chunks: int = 1) -> bytes:
        header = self._plan.header(phase, self._identity.name, chunk=chunk, chunks=chunks)
        return sign_envelope(self._identity, header, body)
