"""A client that goes on after a kill: from its folder, in the same round, with the same bytes.

Guarantee: what it answers follows from what is on its disk, so the next life gives the same answer
to the same question; nothing is released twice. Its folder is its own while it lives.
Assumes: what `PartyFolder` and `FolderStore` do; the site's gate and release box outlive a kill too
(`federation.site`).
Not covered: a folder that is put back to what it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.federation.parties.client import FederationClient, Site
from secure_fl.federation.parties.client_round import ClientRound
from secure_fl.federation.parties.holder_store import HolderRecord, Kept
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.parties.replica import decode_opened, encode_opened
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan


class KeptClient(Kept, FederationClient):
    """A client with a folder; made as `FederationClient` is.

    Args:
        identity, roster, site, shared, randomness: as of `FederationClient`.
        folder: its own; what an earlier life of this client left there is taken up.

    Raises:
        RunFolderError: the folder is damaged, or another party's.
        SecureSumError: what it keeps of a round is.
        FileError: it cannot be read.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        site: Site,
        folder: PartyFolder,
        *,
        shared: Shared | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        store = folder.rounds()
        super().__init__(identity, roster, site, store=store, shared=shared, randomness=randomness)
        self._open(folder)

    def _take_up(self, record: HolderRecord) -> None:
        try:
            plan = Plan.open(record.plan, self._wire.roster)
            self._sit(plan)
            seat = self._seated()
            seat.keyring.take_up(record.keys)
        except RefusedError as error:
            raise self.folder.damaged("plan", sealed=False, problem=error.problem) from None
        self._signed, seat.replica.state = record.plan, record.state
        progress = self._progress
        progress.head, progress.last, progress.over = record.head, record.last, record.over
        progress.begun = record.begun
        self._due = None if record.over else 0.0
        if record.running and record.begun is not None:
            form = seat.replica.program.form(record.begun.place)
            running = ClientRound(seat, record.begun, form, seat.plans(record.begun, form))
            data = record.opened.get(running.number)
            opened = None if data is None else decode_opened(data, form.shape)
            running.take_up(record.after, record.agreed, opened)
            progress.round = running
        progress.ahead.used = record.used
        if record.ahead is not None:
            form = seat.replica.program.form(record.ahead.place)
            plans = seat.plans(record.ahead, form)
            progress.ahead.round = ClientRound(seat, record.ahead, form, plans)

    def _record(self) -> HolderRecord | None:
        if self._seat is None:
            return None
        seat, progress, running = self._seat, self._progress, self._progress.round
        opened = None if running is None else running.kept_sum
        return HolderRecord(
            self._signed,
            seat.keyring.encode(),
            seat.replica.state,
            progress.head,
            progress.last,
            progress.begun,
            running is not None,
            None if running is None else running.next,
            running is not None and running.agreed,
            progress.over,
            progress.ahead.call,
            progress.ahead.used,
            {} if running is None or opened is None else {running.number: encode_opened(opened)},
        )
