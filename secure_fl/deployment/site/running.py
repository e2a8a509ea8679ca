"""A site's process: it lasts, holds data and keys, and goes on from its folder after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from secure_fl.deployment.certificates import days_left
from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.making import finish_install
from secure_fl.deployment.site.parties import SiteParties
from secure_fl.deployment.site.results import write_results
from secure_fl.deployment.site.watching import SiteWatch
from secure_fl.deployment.site.ways import Direct, Outcome, Way
from secure_fl.engines.session.driver import Driver
from secure_fl.engines.session.link import Link, Watches
from secure_fl.errors import DeploymentError
from secure_fl.federation.site import LEDGER
from secure_fl.federation.transcript.chain import Transcript
from secure_fl.federation.transcript.entries import EndEntry
from secure_fl.files import held, is_file, read_bytes, remove_unfinished
from secure_fl.operations.watching import Watching, watch_of
from secure_fl.quantities import counted

LINGER = 3.0
"""Seconds for which parties here still answer when it is over: others may need what they have."""
ENDED_EARLY = "ended-early"
"""Why a federation ended in which rounds were left: its server closed it, or acts as if it had."""
_GRACE = 5.0
"""Seconds after one party's objection in which the others of this site may say theirs."""
_AGAIN = 2.0
_LOOK = 1.0
"""Seconds for which somebody who looks whether the site runs may hold its folder."""


def run_site(
    folder: SiteFolder,
    *,
    stop: Callable[[], bool] = lambda: False,
    forever: bool = False,
    also: Watching | None = None,
) -> Outcome:
    """Take part in the federation that this site has joined, until it is over.

    Args:
        folder: of the site; nobody else may run it meanwhile.
        stop: asked now and then: whether to stop; the next run goes on from here.
        forever: wait for the next invitation when it is over, instead of ending.
        also: is told what happens, too.

    Raises:
        RunFolderError: somebody runs this site already; it has not joined; its folder is damaged.
        DeploymentError: something does not fit: a pin, the certificate, the data.
        SecureFLError: a file cannot be read or written, or is not what it should be.
    """
    with held(folder.path, wait=_LOOK):
        remove_unfinished(folder.path)
        while True:
            taken = read_bytes(folder.invitation_file) if folder.joined else b""
            outcome = _one(folder, stop, also or watch_of(None, role="site", name=folder.name))
            if not forever or outcome.word in ("stopped", "unreachable"):
                return outcome
            if not _next(folder, taken, stop):
                return Outcome("stopped")


def _next(folder: SiteFolder, taken: bytes, stop: Callable[[], bool]) -> bool:
    """Wait for another invitation than the one that was run by, which may have come meanwhile;
    False where `stop` came first.
    """
    while not stop():
        if read_bytes(folder.invitation_file) != taken:
            return True
        time.sleep(_AGAIN)
    return False


def _one(folder: SiteFolder, stop: Callable[[], bool], also: Watching) -> Outcome:
    finish_install(folder)
    invitation, roster, plan = folder.federation()
    watch = SiteWatch(folder, sorted(folder.identities), also.view)
    if objection := folder.pins.objection(plan, roster):
        watch.state("refused", objection)
        return Outcome("refused", objection)
    check_certificate_runs(folder)
    parties = SiteParties(folder, roster, plan)
    try:
        own = {one.name: folder.party(plan, one.name) for one in parties.hosted}
        ledgers = {name: path / LEDGER for name, path in own.items()}
        also.follow(next(iter(own.values())), ledgers)
        with _way(folder, invitation, parties) as way:
            return _Run(folder, parties, way, watch, also, stop).to_the_end()
    finally:
        parties.close()


@contextmanager
def _way(folder: SiteFolder, invitation: Invitation, parties: SiteParties) -> Iterator[Way]:
    names = tuple(one.name for one in parties.hosted)
    most = parties.longest(invitation.plan)
    way: Way = Direct(folder, invitation.settings, names, most)
    if invitation.settings.launch == "flower":
        from secure_fl.deployment.site.by_flower import ByFlower

        way = ByFlower(folder, invitation, names, most)
    try:
        yield way
    finally:
        way.close()


@dataclass
class _Run:
    """The parties of a site on their way."""

    folder: SiteFolder
    parties: SiteParties
    way: Way
    watch: SiteWatch
    also: Watching
    stop: Callable[[], bool]
    _refused: float | None = None
    """When a party refused first."""

    def to_the_end(self) -> Outcome:
        """Run the parties to an end, and write what came out."""
        self.watch.state("waiting")
        link = self.way.begin(self.stop, at_once=self.parties.under_way)
        if link is None:
            outcome = Outcome("stopped")
        else:
            try:
                outcome = self._driven(link)
                if outcome.word == "finished":
                    write_results(self.folder, self.parties)
                self.way.finish(outcome)
            finally:
                link.close()
        self.watch.state(outcome.word, outcome.reason)
        return outcome

    def _driven(self, link: Link) -> Outcome:
        driver = Driver(
            [one.party for one in self.parties.hosted], link, watch=Watches(self.watch, self.also)
        )
        over = driver.run(until=self._until, linger=LINGER)
        if self.parties.objections:
            return Outcome("refused", "; ".join(self.parties.objections))
        if over:
            reason = ended(self.folder, self.parties)
            return Outcome("failed", reason) if reason else Outcome("finished")
        if self._given_up:
            patience = self.folder.settings.launch.patience
            return Outcome("unreachable", f"no way to the server for {patience:g} s")
        return Outcome("stopped")

    def _until(self) -> bool:
        """Whether to stop before the end; asked now and then."""
        self.watch.glance()
        self.way.tend()
        if self.parties.objections and self._refused is None:
            self._refused = time.monotonic()
        all_said = len(self.parties.objecting) == len(self.parties.hosted)
        late = self._refused is not None and time.monotonic() - self._refused > _GRACE
        refused = self._refused is not None and (all_said or late)
        return self.stop() or self._given_up or refused

    @property
    def _given_up(self) -> bool:
        patience, lost = self.folder.settings.launch.patience, self.watch.lost_at
        return patience is not None and lost is not None and time.monotonic() - lost > patience


def ended(folder: SiteFolder, parties: SiteParties) -> str:
    """Why the federation ended early, in a word; empty where it came to its end."""
    for one in parties.hosted:
        path = folder.party(parties.plan, one.name) / "transcript.jsonl"
        for line in Transcript.open(path).lines() if is_file(path) else ():
            if isinstance(line.entry, EndEntry) and line.entry.reason != "done":
                return line.entry.reason
    states = [one.party.state for one in parties.hosted if one.party.state is not None]
    if not any(parties.program(parties.plan).done(state.place) for state in states):
        return ENDED_EARLY
    return ""


def check_certificate_runs(folder: SiteFolder) -> None:
    """Refuse to dial with a certificate that has run out. Raises DeploymentError: it has;
    FileError: it cannot be read.
    """
    days = days_left(read_bytes(folder.tls.certificate))
    if days < 0:
        remedy = f"`secure-fl site renew {folder.path}`, and send the new key card"
        raise DeploymentError("has run out", "certificate", f"{counted(-days, 'day')} ago", remedy)
