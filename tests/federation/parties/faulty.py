"""Faults to put into a toy federation, and parties that are wrapped to have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from federation.parties.toy_federation import Made
from federation.parties.trials import Recorded, chunk_of

from secure_fl.crypto.envelope import Phase, read_header, sign_envelope
from secure_fl.engines.queue import Tap
from secure_fl.errors import FileError, TrainingError
from secure_fl.federation.parties.party import Message, Party
from secure_fl.federation.state import State
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.store import MemoryStore, Sealed

Change = Callable[[bytes], bytes | None]
"""What becomes of one message; None where it is lost."""


def meddled(sender: str, phase: Phase, change: Change, *, chunk: int = 0, number: int = 0) -> Tap:
    """A tap that changes the messages of one kind that a party sends in one round."""

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        return (
            change(bytes(data))
            if who == sender and chunk_of(data) == (phase, chunk, number)
            else data
        )

    return tap


def silent(made: Made, name: str, phase: Phase, chunk: int = 0, *, after: bool = False) -> Tap:
    """A tap through which nothing of a party comes, from its first message of this kind on."""

    def change(data: bytes) -> bytes | None:
        made.lost.add(name)
        return data if after else None

    return meddled(name, phase, change, chunk=chunk)


def resigned(
    made: Made, name: str, data: bytes, body: Callable[[bytes], bytes], roster: object = None
) -> bytes:
    """A message with another body, signed by its sender all the same."""
    header = read_header(data)
    start = len(data) - header.body_length
    changed = replace(header, body_length=0, body_hash=bytes(32))
    return sign_envelope(made.identities[name], changed, body(data[start:]))


def with_blocks(
    made: Made, name: str, data: bytes, change: Callable[[list[bytes]], list[bytes]]
) -> bytes:
    """An upload with other blocks, each signed by its sender as one of so many."""
    envelopes = [bytes(part) for part in unframe(memoryview(data))]
    heads = [read_header(part) for part in envelopes]
    bodies = change(
        [part[len(part) - head.body_length :] for part, head in zip(envelopes, heads, strict=True)]
    )
    signed = [
        sign_envelope(
            made.identities[name],
            replace(heads[0], chunk=chunk, chunks=len(bodies), body_length=0, body_hash=bytes(32)),
            body,
        )
        for chunk, body in enumerate(bodies)
    ]
    return frames(signed)


class Wrapped:
    """A party, as it is."""

    def __init__(self, party: Party) -> None:
        self.party, self.name = party, party.name

    @property
    def over(self) -> bool:
        return self.party.over

    @property
    def due(self) -> float | None:
        return self.party.due

    def tick(self, now: float) -> list[Message]:
        return self.party.tick(now)

    def receive(self, data: bytes | memoryview) -> list[Message]:
        return self.party.receive(data)


class Slow(Wrapped):
    """A party that answers in one phase of round 0 when the server has just gone on without it."""

    def __init__(
        self, party: Party, phase: Phase, chunk: int, ends: Callable[[], float | None]
    ) -> None:
        super().__init__(party)
        self._kind, self._ends = (phase, chunk, 0), ends
        self.held: list[Message] = []
        self._until: float | None = None

    @property
    def due(self) -> float | None:
        return self._until if self.held else self.party.due

    def tick(self, now: float) -> list[Message]:
        late, self.held = self.held, []
        return late or self.party.tick(now)

    def receive(self, data: bytes | memoryview) -> list[Message]:
        sent = self.party.receive(data)
        late = [message for message in sent if chunk_of(message.data) == self._kind]
        if late:
            self.held, self._until = late, self._ends()
        return [message for message in sent if message not in late]


class Mortal(Wrapped):
    """A party that is dead once `killed`: it hears nothing, says nothing and waits for nothing."""

    killed = False

    @property
    def due(self) -> float | None:
        return None if self.killed else self.party.due

    def tick(self, now: float) -> list[Message]:
        return [] if self.killed else self.party.tick(now)

    def receive(self, data: bytes | memoryview) -> list[Message]:
        return [] if self.killed else self.party.receive(data)


class FullDisk(MemoryStore):
    """A store whose n-th write fails, and every one after it."""

    def __init__(self, left: int, error: type[Exception] = FileError) -> None:
        super().__init__()
        self.left, self._error, self.failed = left, error, False

    def _write(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.failed = True
            raise no_space() if self._error is FileError else OSError(28, "No space left on device")

    def begin(self, round_number: int, question: bytes = b"", state: Sealed | None = None) -> None:
        self._write()
        super().begin(round_number, question, state)

    def open(self, question: bytes, round_number: int) -> None:
        self._write()
        super().open(question, round_number)

    def keep(self, round_number: int, upload: bytes | memoryview) -> None:
        self._write()
        super().keep(round_number, upload)

    def save(self, round_number: int, state: Sealed) -> None:
        self._write()


def no_space() -> FileError:
    """What writing to a full disk raises."""
    return FileError("no space left", field="file", value="state", remedy="make room")


class NotFinite(Recorded):
    """A client whose training gives no number in the first round."""

    def answer(self, state: State, position: int) -> Blocks:
        blocks = super().answer(state, position)
        if state.place.round == 0 and self.client == 3:
            problem, remedy = "the loss is not finite", "lower the learning rate"
            raise TrainingError(problem, field="loss", value="nan", remedy=remedy)
        return blocks


class OtherShape(Recorded):
    """A client that answers the first round with one value too many in each pool."""

    def answer(self, state: State, position: int) -> Blocks:
        blocks = super().answer(state, position)
        if state.place.round == 0 and self.client == 3:
            return replace(blocks, pools=torch.cat([blocks.pools, blocks.pools[:, :1]], dim=1))
        return blocks


class OtherPools(Recorded):
    """A client that answers the first round with a pool too many."""

    def answer(self, state: State, position: int) -> Blocks:
        blocks = super().answer(state, position)
        if state.place.round == 0 and self.client == 3:
            return replace(
                blocks,
                head=torch.cat([blocks.head, blocks.head[:1]]),
                pools=torch.cat([blocks.pools, blocks.pools[:1]]),
            )
        return blocks


class TooLarge(Recorded):
    """A client that answers the first round with a value that no field holds."""

    def answer(self, state: State, position: int) -> Blocks:
        blocks = super().answer(state, position)
        if state.place.round == 0 and self.client == 3:
            return replace(blocks, pools=blocks.pools + (1 << 30))
        return blocks
