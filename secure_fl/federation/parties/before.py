"""A client's own folder under the plan that another one goes on from.

Guarantee: a client goes on only from where it has come to itself, once, after that federation has
ended for it, and where no round was called there; so no sum of the one and none of the other are
over the same answers. It goes on from there again only where the plan that it went on to has ended
for it before any round was called.
Assumes: as `PartyFolder`.
Not covered: a folder that is put back to what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from secure_fl.crypto.envelope import body_of
from secure_fl.crypto.strict_json import canonical
from secure_fl.federation.parties.holder_store import HolderStore
from secure_fl.federation.parties.party_folder import BEFORE, SUCCESSOR, PartyFolder
from secure_fl.federation.plan import Plan
from secure_fl.federation.state import State
from secure_fl.federation.succession import objection
from secure_fl.privacy.chain import Mark


class Before:
    """What a client had come to. Raises RunFolderError: the folder is damaged; FileError: it cannot
    be read.

    Args:
        folder: of the client under the plan before, held.
        own: its folder under the plan that follows.
        vain: whether a plan of this digest ended for it before any round was called there.
    """

    def __init__(
        self, folder: PartyFolder, own: PartyFolder, vain: Callable[[bytes], bool]
    ) -> None:
        self._folder, self._own, self._vain = folder, own, vain
        self._record = HolderStore(folder).kept()
        self._next = folder.kept(SUCCESSOR, sealed=False)
        self._plan = None if self._record is None else Plan.decode(body_of(self._record.plan))

    def needed(self, name: str) -> bytes:
        """What it wrote there under a name, sealed. Raises RunFolderError: damaged, or gone."""
        return self._folder.needed(name)

    @property
    def path(self) -> Path:
        """Where its ledger is, and what it stored."""
        return self._folder.path

    @property
    def state(self) -> State | None:
        """The models that it had come to; None where it had agreed to no plan."""
        return None if self._record is None else self._record.state

    def objection(self, plan: Plan) -> str | None:
        """Why this client does not go on under a plan that follows; None where it does."""
        record, before, follows = self._record, self._plan, plan.follows
        if record is None or before is None or follows is None:
            return None
        if (found := objection(before, plan)) is not None:
            return found
        at, called = record.state.place, record.begun
        if not record.over:
            return "the federation before has not ended here: its server tells late sites"
        if at != follows.place or record.state.digest != plan.start:
            return "it does not go on from where this client has come to"
        if called is not None and called.place >= at:
            return "a round was called already where it goes on"
        if self._next not in (None, plan.digest) and not self._vain(self._next):
            return "another plan goes on from there already"
        return None

    def left_for(self, plan: Plan, ledger: Mark | None) -> None:
        """Remember, in both folders, that this client goes on there. Raises FileError: it cannot be
        written.

        Args:
            ledger: how far its ledger had come; None where it has none.
        """
        counted = [] if ledger is None else [ledger.length, ledger.head]
        facts = {"plan": plan.follows.plan.hex() if plan.follows else "", "ledger": counted}
        self._folder.keep(SUCCESSOR, plan.digest, sealed=False)
        self._own.keep(BEFORE, canonical(facts), sealed=False)
