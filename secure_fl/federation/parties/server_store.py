"""A server that goes on after a kill: in the same round, or with the next number.

    progress       place, number, attempt, members, keys sealed for others, the last calls, who
                   left the running round and why, the transcript's head
    state          the sealed state that others may want, unreadable here
    sums-PART/     the journals of sums (`RoundJournal`): of the round that runs, and of the one
                   that is prepared

Guarantee: nothing is sent before what it follows from is on the disk. A server that is made again
sends again what went out last, byte for byte, and goes on where its journals end; where the journal
of its round is gone, it takes the next number. What it wrote into the transcript is not written a
second time. Nothing in its folder is secret from it.
Assumes: one server at a time has the folder; it is not put back to what it was.
Not covered: its record of refused messages (`refusals`, `said`), which begins anew; the transcript
has the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.strict_json import (
    canonical,
    fields,
    from_base64,
    from_hex,
    malformed,
    parse_object,
    to_base64,
)
from secure_fl.errors import SecureFLError, SecureSumError
from secure_fl.federation.parties.attempt import Attempt, Deadlines
from secure_fl.federation.parties.calling import ATTEMPTS, Call, round_plans
from secure_fl.federation.parties.party import Message, failure_word
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.parties.server_record import Journal, Stage, going_on
from secure_fl.federation.place import Place
from secure_fl.federation.program import Schedule
from secure_fl.federation.transcript.entries import EndEntry, RoundEntry
from secure_fl.federation.wire import read_place, shown
from secure_fl.files import is_file, listed
from secure_fl.secure_sum.block_codec import server_cipher
from secure_fl.secure_sum.journal import RoundJournal, forget_after
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError

_PROGRESS, _STATE, _SUMS = "progress", "state", "sums-"
_LISTS = ("place", "without", "declined", "call", "ahead", "messages", "left", "again")
_TYPES: dict[str, type] = {
    **dict.fromkeys(("version", "number", "attempt"), int),
    **dict.fromkeys(("plan", "state", "stage", "failed", "head"), str),
    **dict.fromkeys(("members", "before", "silent", "told", "keys", "reached"), dict),
    **dict.fromkeys(_LISTS, list),
}
_VERSION = 2


class KeptServer(FederationServer):
    """A server with a folder.

    Args:
        identity, roster, plan, schedule: as of `FederationServer`.
        folder: its own; what an earlier life of this server left there is taken up.
        start: where the program begins.
        deadlines: how long it waits.
        journal: where it writes what happens.

    Raises:
        RunFolderError: the folder is damaged, another party's, or of another plan.
        SecureSumError: the journal of the running round is damaged.
        FileError: a file cannot be read or written.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        plan: bytes,
        schedule: Schedule,
        folder: PartyFolder,
        *,
        start: Place | None = None,
        deadlines: Deadlines | None = None,
        journal: Journal | None = None,
    ) -> None:
        super().__init__(
            identity, roster, plan, schedule, start=start, deadlines=deadlines, journal=journal
        )
        self.folder, self._unsent = folder, list[Message]()
        self._journals = lambda plan, part: RoundJournal(self._sums(part), plan)
        data = folder.kept(_PROGRESS, sealed=False)
        self._resuming, self._timeless = data is not None, data is not None
        head, again = bytes(32), list[bytes]()
        if data is not None:
            try:
                found = fields(parse_object(data, _PROGRESS), _PROGRESS, _TYPES)
                head, *again = [
                    from_hex(one, "head", 32) for one in (found["head"], *found["again"])
                ]
                self._take_up(found)
            except (TypeError, ValueError, LookupError):
                raise folder.damaged(_PROGRESS, sealed=False) from None
            except SecureSumError as error:
                if error.field == "round journal":
                    raise
                problem = f"is damaged: {error.problem}"
                raise folder.damaged(_PROGRESS, sealed=False, problem=problem) from None
        for part in listed(folder.path):
            if part.name.startswith(_SUMS):
                forget_after(part, self._progress.used)
        self._journal, self._unheard = going_on(self._journal, head, again)

    @property
    def due(self) -> float | None:
        """When the next wait ends; at once where it was made again, or could not write."""
        return 0.0 if self._resuming or self._unsent else super().due

    @property
    def over(self) -> bool:
        """As of any server; one that was made again has something to say first."""
        return super().over and not self._resuming and not self._unsent

    def tick(self, now: float) -> list[Message]:
        """End what has waited for too long; go on where an earlier life was. Raises FileError: the
        folder cannot be written to: make room, and make the server again.
        """
        if self._timeless:  # what an earlier life waited for is waited for anew
            self._timeless, self._now = False, max(now, self._now)
            self._until += self._now
            if self._attempt is not None:
                self._attempt.restart(self._now)
        again = self._remember(self._go_on())
        return self._safe([*again, *super().tick(now)])

    def receive(self, data: bytes | memoryview) -> list[Message]:
        """One message; what follows is given once it is sure to be given again after a kill."""
        again = self._remember(self._go_on())
        stage, sent = self.stage, [*again, *super().receive(data)]
        if not sent and not self._unsent and self.stage == stage == Stage.SUM:
            return []  # the sum's own journal has it
        try:
            return self._safe(sent)
        except SecureFLError as error:
            self.refusals.add(data, error)
            return []

    def _safe(self, sent: list[Message]) -> list[Message]:
        """What may go out, as it is on the disk now; it waits for the next time where it is not."""
        self._unsent += sent
        self.folder.keep(_STATE, self._states.sealed, sealed=False)
        self.folder.keep(_PROGRESS, canonical(self._document()), sealed=False)
        sent, self._unsent = self._unsent, []
        return sent

    def _coming(
        self, number: int, place: Place, attempt: int = 1, without: frozenset[str] = frozenset()
    ) -> Call:
        """As before; a call that an earlier life wrote down counts as an attempt, where this is
        another: nobody heard it, and it stays in the transcript.
        """
        call = super()._coming(number, place, attempt, without)
        found = [line.entry for line in self._unheard if isinstance(line.entry, RoundEntry)]
        wrote = [entry for entry in found if Place(*entry.place) == place]
        if not wrote or _called(wrote[0]) == _called(call):
            return call
        number, self._progress.attempt = max(number, wrote[0].round + 1), wrote[0].attempt
        self._try_again()
        return super()._coming(number, place, self._progress.attempt, without)

    def _sums(self, part: int) -> Path:
        return self.folder.path / f"{_SUMS}{part}"

    # What is kept

    def _document(self) -> dict[str, Any]:
        progress, attempt = self._progress, self._attempt
        calls = self._called
        messages = list(dict.fromkeys(calls.values()))
        return {
            "version": _VERSION,
            "plan": self.plan.digest.hex(),
            "place": shown(progress.place),
            "state": progress.state.hex(),
            "number": progress.number,
            "attempt": progress.attempt,
            "without": sorted(progress.without),
            "members": {name: head.hex() for name, head in self._members.items()},
            "before": {name: head.hex() for name, head in self._before.items()},
            "declined": sorted(self._declined),
            "silent": self._silent,
            "stage": str(self.stage),
            "call": [] if attempt is None else [attempt.call.document()],
            "ahead": [] if self._ahead is None else [self._ahead.call.document()],
            "told": {name: messages.index(data) for name, data in calls.items()},
            "messages": [to_base64(data) for data in messages],
            "keys": self._keys.kept(),
            "reached": self._states.kept(),
            "failed": failure_word(self.failed),
            "left": [one.left() if one else {} for one in (attempt, self._ahead)],
            "head": self._journal.head().hex(),
            "again": [line.head.hex() for line in self._unheard],
        }

    def _take_up(self, found: dict[str, Any]) -> None:
        if found["version"] != _VERSION or found["plan"] != self.plan.digest.hex():
            raise malformed("progress", "of another plan or version")
        progress = self._progress
        progress.place, progress.state = read_place(found["place"]), bytes.fromhex(found["state"])
        progress.number, progress.attempt = found["number"], found["attempt"]
        progress.used = progress.number
        progress.without = frozenset(found["without"])
        self._members = {name: from_hex(one, "head", 32) for name, one in found["members"].items()}
        self._before = {name: from_hex(one, "head", 32) for name, one in found["before"].items()}
        self._declined, self._silent = set(found["declined"]), dict(found["silent"])
        self.stage = Stage(found["stage"])
        messages = [from_base64(text, "message") for text in found["messages"]]
        self._called = {name: messages[place] for name, place in found["told"].items()}
        self._keys.take_up(found["keys"])
        sealed = self.folder.kept(_STATE, sealed=False) or b""
        self._states.take_up(found["reached"], sealed)
        if found["failed"]:
            self.failed = _failed(found["failed"])
        if found["call"] and self.stage in (Stage.SUM, Stage.PARTS, Stage.RESULTS):
            self._attempt = self._taken_up(Call.read(found["call"][0]))
        for prepared in map(Call.read, found["ahead"]):
            self._ahead, progress.used = self._taken_up(prepared), prepared.number
        for one, left in zip((self._attempt, self._ahead), found["left"], strict=True):
            for name, (reason, blamed) in left.items():
                if one is not None:
                    one.leave(name, reason, blamed)
        self._take_up_models()

    def _take_up_models(self) -> None:
        """Where the plan publishes the models: those of the place that was reached."""
        if self._reader is not None and self._keys.secret:
            self._reader.take_secret(self._keys.secret)
            self._publish()

    def _taken_up(self, call: Call) -> Attempt | None:
        """The running attempt as its journals have it; None where one is gone."""
        form = self._schedule.form(call.place)
        plans = round_plans(self.plan, self._wire.roster, form, call)
        parts = range(len(plans))
        if not all(is_file(self._sums(part) / f"{call.number}.journal") for part in parts):
            return None
        self._cipher = server_cipher(plans[0])
        identity = self._wire.identity
        more = (identity, self._cipher, self._deadlines, self._now, self._journals)
        return Attempt(call, form, plans, *more)

    # Going on

    def _go_on(self) -> list[Message]:
        """In a new life, before all else: what went out last, again, and what follows."""
        if not self._resuming:
            return []
        self._resuming = False
        self._mark_revoked(self.revoked())  # what is called again is called as it was
        goes: dict[Stage, Callable[[], list[Message]]] = {
            Stage.JOIN: self._resume_join,
            Stage.KEYS: lambda: self._go(self._next),
            Stage.SUM: self._resume_sums,
            Stage.PARTS: self._resume_parts,
            Stage.RESULTS: self._resume_parts,
            Stage.OVER: lambda: [Message(name, data) for name, data in self._called.items()],
        }
        keys = [Message(name, data) for name in self._members for data in self._keys.current]
        unread = self._reader is not None and not self._states.sealed
        ends = [line.entry.reason for line in self._unheard if isinstance(line.entry, EndEntry)]
        if ends and ends[0] != "done":  # it is in the transcript, so it stays
            return self._finish(_failed(ends[0]))
        more = [*goes[self.stage](), *(self._go_without(self._revoked) if self._revoked else [])]
        return [*keys, *more, *(self._ask_state() if unread else [])]

    def _resume_join(self) -> list[Message]:
        self._wait(Stage.JOIN, self._deadlines.join)
        return [Message(name, self._plan_data) for name in sorted(self._missing())]

    def _resume_sums(self) -> list[Message]:
        attempt = self._attempt
        if attempt is None:
            return self._go(self._lost)
        told = {message.to for message in attempt.again}
        first = {name for one in attempt.sums for name in one.waiting}
        first |= {self.plan.authority} if self.plan.by_authority else set()
        first = (first - told) | attempt.unanswered
        calls = [Message(name, data) for name, data in self._called.items() if name in first]
        away = sorted(self._missing() | attempt.silent)
        more = [Message(name, self._plan_data) for name in away]
        return [*attempt.again, *calls, *self._resume_ahead(), *more, *self._go(self._pump)]

    def _resume_ahead(self) -> list[Message]:
        """What is prepared goes on beside the round that runs."""
        ahead = self._ahead
        if ahead is None:
            return []
        return [*ahead.again, *self._propose(ahead), *self._go(ahead.prepare)]

    def _lost(self) -> list[Message]:
        """The journal of the running round is gone: try again under the next number."""
        self._try_again()
        # nobody knows who heard the call that is lost
        called = self._called.keys() & self._members.keys()
        self._members |= {name: self._before[name] for name in called}
        return self._next()

    def _try_again(self) -> None:
        """Count another attempt at the round."""
        if self._progress.attempt >= ATTEMPTS:
            problem, remedy = "all attempts were lost", "begin another federation"
            raise RoundRefusedError(
                RoundReason.TOO_FEW, problem, "round", self._progress.number, remedy
            )
        self._progress.attempt += 1

    def _resume_parts(self) -> list[Message]:
        if self._attempt is None:
            return self._go(self._lost)
        self._progress.asked = set()
        self._wait(Stage.PARTS, self._deadlines.answer)
        work = self._send_parts if self.plan.by_authority else self._ask_parts
        return [*self._go(work), *self._resume_ahead()]


def _called(what: RoundEntry | Call) -> tuple[int, int, tuple[str, ...], str]:
    """What tells a call from others at its place."""
    if isinstance(what, RoundEntry):
        return what.round, what.attempt, what.left_out, what.key
    return what.number, what.attempt, what.left_out, what.key.hex()


def _failed(word: str) -> SecureSumError:
    """Why a federation had failed, of which the word is left."""
    remedy = "read the transcript, and begin another federation"
    if word in set(RoundReason):
        return RoundRefusedError(RoundReason(word), "failed before", "federation", word, remedy)
    return SecureSumError("failed before", "federation", word, remedy)
