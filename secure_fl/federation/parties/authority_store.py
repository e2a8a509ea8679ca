"""An authority that goes on after a kill: from its folder, with the same bytes.

Guarantee, Assumes: as of `KeptClient`. Its secret key is in the folder, sealed.
Not covered: a folder that is put back to what it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.errors import SecureFLError
from secure_fl.federation.parties.authority import FederationAuthority
from secure_fl.federation.parties.holder_store import HolderRecord, HolderStore
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.parties.replica import decode_opened, encode_opened
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.party import Message
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Program


class KeptAuthority(FederationAuthority):
    """An authority with a folder; made as `FederationAuthority` is.

    Args:
        identity: of role `authority`.
        roster: in force.
        prepare: makes the program of a plan.
        folder: its own; what an earlier life of it left there is taken up.
        judge: why it does not take part in a plan, None where it does.
        shared: what parties of one process share.
        randomness: uniform secret bytes.

    Raises:
        RunFolderError: the folder is damaged, or another party's.
        SecureSumError: what it keeps of a round is.
        FileError: it cannot be read.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        prepare: Callable[[Plan], Program],
        folder: PartyFolder,
        *,
        judge: Callable[[Plan], str | None] = lambda _: None,
        shared: Shared | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        super().__init__(
            identity, roster, prepare, judge=judge, shared=shared, randomness=randomness
        )
        self.folder, self._records, self._rounds = folder, HolderStore(folder), folder.rounds
        record = self._records.kept()
        if record is not None:
            self._take_up(record)

    def receive(self, data: bytes | memoryview) -> list[Message]:
        """One message; the answers are given once they are sure to be given again after a kill."""
        sent = super().receive(data)
        try:
            self._keep()
        except SecureFLError as error:
            self.refusals.add(data, error)
            return []
        return sent

    def _take_up(self, record: HolderRecord) -> None:
        try:
            self._sit(Plan.open(record.plan, self._wire.roster))
            _, replica, keyring = self._seated()
            keyring.take_up(record.keys)
        except RefusedError as error:
            raise self.folder.damaged("plan", sealed=False, problem=error.problem) from None
        self._signed, replica.state = record.plan, record.state
        self.over, self._due = record.over, None if record.over else 0.0
        if record.begun is None:
            return
        form = replica.program.form(record.begun.place)
        self._call, self._next = record.begun, record.after
        self._opened = {
            part: decode_opened(data, form.shape) for part, data in record.opened.items()
        }
        if record.begun.key == keyring.fingerprint:  # else that round is long over
            self._sums = self._called(record.begun)

    def _keep(self) -> None:
        if self._replica is None:
            return
        _, replica, keyring = self._seated()
        record = HolderRecord(
            self._signed,
            keyring.encode(),
            replica.state,
            begun=self._call,
            running=self._call is not None,
            after=self._next,
            over=self.over,
            opened={part: encode_opened(opened) for part, opened in self._opened.items()},
        )
        self._records.keep(record)
