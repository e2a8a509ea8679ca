"""What a client or authority keeps in its folder of a federation, beside the rounds themselves.

    plan        the signed plan that it accepted
    head        of the transcript that it follows, in the open, for whoever checks the folder
    keys        its keys, as the keyring gives them
    progress    how far it is; names what follows
    part-…      a state, or opened sums, by the digest of what is in it

Guarantee: `progress` is replaced last and in one step, so what a party goes on with is what it had
at one moment. What it does not name is removed only after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.strict_json import canonical, fields, malformed, parse_object
from secure_fl.errors import SecureFLError
from secure_fl.federation.parties.calling import Call
from secure_fl.federation.parties.participant import Participant
from secure_fl.federation.parties.party import Message, typed_files
from secure_fl.federation.parties.party_folder import HEAD, PartyFolder
from secure_fl.federation.state import State
from secure_fl.federation.wire import route

_PLAN, _KEYS, _PROGRESS, _PART = "plan", "keys", "progress", "part-"
_TYPES: dict[str, type] = {
    "head": str,
    "opened": dict,
    **dict.fromkeys(("version", "running", "agreed", "over", "used"), int),
    **dict.fromkeys(("last", "begun", "ahead", "state", "next"), list),
}
_VERSION = 2


@dataclass(frozen=True)
class HolderRecord:
    """A holder of the models at one moment.

    Attributes:
        plan: signed bytes.
        keys: of its keyring.
        state: its replica.
        head: of the transcript that it follows.
        last: number and hash of the last call that it took.
        begun: the last call that it took part in, or refused to.
        running: whether that round runs.
        after: the state that follows from it, where it is known.
        agreed: whether others were heard to come to the same.
        over: whether the federation has ended.
        ahead: the call that it has prepared.
        used: the last number that it has prepared one under.
        opened: sums that it opened itself, encoded, by group; kept of rounds in groups.
    """

    plan: bytes = field(repr=False)
    keys: bytes = field(repr=False)
    state: State
    head: bytes = bytes(32)
    last: tuple[int, bytes] = (-1, b"")
    begun: Call | None = None
    running: bool = False
    after: State | None = None
    agreed: bool = False
    over: bool = False
    ahead: Call | None = None
    used: int = -1
    opened: Mapping[int, bytes] = field(default_factory=dict, repr=False)


class HolderStore:
    """Records in a folder, the last one only."""

    def __init__(self, folder: PartyFolder) -> None:
        self._folder = folder

    def keep(self, record: HolderRecord) -> None:
        """Write what is new of a record. Raises FileError: it cannot be written; the one before is
        whole.
        """
        folder = self._folder
        folder.keep(_PLAN, record.plan, sealed=False)
        folder.keep(HEAD, record.head.hex().encode(), sealed=False)
        folder.keep(_KEYS, record.keys)
        state = self._state(record.state)
        after = [] if record.after is None else self._state(record.after)
        opened = {str(part): self._part(data) for part, data in record.opened.items()}
        facts = {
            "version": _VERSION,
            "head": record.head.hex(),
            "last": [record.last[0], record.last[1].hex()],
            "begun": [] if record.begun is None else [record.begun.document()],
            "running": int(record.running),
            "agreed": int(record.agreed),
            "over": int(record.over),
            "ahead": [] if record.ahead is None else [record.ahead.document()],
            "used": record.used,
            "state": state,
            "next": after,
            "opened": opened,
        }
        folder.keep(_PROGRESS, canonical(facts))
        folder.only(_PART, [*state[:1], *after[:1], *opened.values()])

    @property
    def begun(self) -> bool:
        """Whether there is a record."""
        return self._folder.holds(_PROGRESS)

    def kept(self) -> HolderRecord | None:
        """The last record; None where there is none. Raises RunFolderError: a file is damaged,
        gone, or another party's; FileError: one cannot be read.
        """
        data = self._folder.kept(_PROGRESS)
        if data is None:
            return None
        try:
            return self._read(data)
        except (SecureFLError, TypeError, ValueError, LookupError) as error:
            if isinstance(error, SecureFLError) and error.code in ("run-folder", "io"):
                raise
            raise self._folder.damaged(_PROGRESS) from None

    def _read(self, data: bytes) -> HolderRecord:
        found, folder = fields(parse_object(data, "progress"), "progress", _TYPES), self._folder
        if found["version"] != _VERSION:
            raise malformed("progress", "of another version")
        number, digest = found["last"]
        return HolderRecord(
            folder.needed(_PLAN, sealed=False),
            folder.needed(_KEYS),
            self._load(found["state"]),
            bytes.fromhex(found["head"]),
            (int(number), bytes.fromhex(digest)),
            Call.read(found["begun"][0]) if found["begun"] else None,
            bool(found["running"]),
            self._load(found["next"]) if found["next"] else None,
            bool(found["agreed"]),
            bool(found["over"]),
            Call.read(found["ahead"][0]) if found["ahead"] else None,
            found["used"],
            {int(part): folder.needed(name) for part, name in found["opened"].items()},
        )

    def _load(self, named: list[Any]) -> State:
        name, digest = named
        state = State.decode(self._folder.needed(name))
        if state.digest.hex() != digest:
            raise self._folder.damaged(name)
        return state

    def _state(self, state: State) -> list[str]:
        name = _PART + state.digest.hex()[:32]
        if not self._folder.has(name):
            self._folder.keep(name, state.encode())
        return [name, state.digest.hex()]

    def _part(self, data: bytes) -> str:
        name = _PART + blake3(data).hexdigest()[:32]
        if not self._folder.has(name):
            self._folder.keep(name, data)
        return name


class Kept(Participant):
    """A participant with a folder; the first of a class's bases, since it stands around the other.

    Attributes:
        folder: its own.
    """

    folder: PartyFolder
    _records: HolderStore
    _away: bool

    def _open(self, folder: PartyFolder) -> None:
        """Take up what an earlier life left in the folder; the last line of a constructor."""
        self.folder, self._records = folder, HolderStore(folder)
        record = self._records.kept()
        self._away = record is not None and not record.over
        if record is not None:
            self._take_up(record)

    def receive(self, data: bytes | memoryview) -> list[Message]:
        """One message; the answers are given once they are sure to be given again after a kill."""
        if self._away and not _is_plan(data):
            return []  # the server says it again, with what was missed, once this party is back
        sent = super().receive(data)
        self._away = self._away and self._due is not None
        try:
            with typed_files():
                self._keep()
        except SecureFLError as error:
            self.refusals.add(data, error)
            self._due = self._hello  # it is told again, and answers the same once it can write
            return []
        return sent

    def back(self) -> None:
        """As of any participant; until the server greets this one it takes nothing, like one that
        was made again: what it was told may have been lost on the way.
        """
        record = self._record()
        self._away = record is not None and not record.over
        if record is None or not record.over:
            super().back()

    def stay(self) -> None:
        """Nothing was lost on the way although this one was made again: it goes on without being
        greeted. Only who carries all its messages, and answers to them, can know that.
        """
        self._away = False

    def _take_up(self, record: HolderRecord) -> None:
        """Go on with what an earlier life had. Raises RunFolderError: it is damaged."""
        raise NotImplementedError

    def _keep(self) -> None:
        record = self._record()
        if record is not None:
            self._records.keep(record)

    def _record(self) -> HolderRecord | None:
        """What the next life goes on with; None before a plan was accepted."""
        raise NotImplementedError


def _is_plan(data: bytes | memoryview) -> bool:
    """Whether a message is the plan, with which a server greets whoever is back."""
    try:
        return route(data).phase == Phase.PLAN
    except RefusedError:
        return False
