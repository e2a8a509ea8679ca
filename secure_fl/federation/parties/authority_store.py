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
from secure_fl.federation.parties.authority import FederationAuthority
from secure_fl.federation.parties.holder_store import HolderRecord, Kept
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.parties.replica import decode_opened, encode_opened
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Program


class KeptAuthority(Kept, FederationAuthority):
    """An authority with a folder; made as `FederationAuthority` is.

    Args:
        identity, roster, prepare, judge, shared, randomness: as of `FederationAuthority`.
        folder: its own; what an earlier life of it left there is taken up.

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
        self._rounds = folder.rounds
        self._open(folder)

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

    def _record(self) -> HolderRecord | None:
        if self._replica is None:
            return None
        _, replica, keyring = self._seated()
        return HolderRecord(
            self._signed,
            keyring.encode(),
            replica.state,
            begun=self._call,
            running=self._call is not None,
            after=self._next,
            over=self.over,
            opened={part: encode_opened(opened) for part, opened in self._opened.items()},
        )
