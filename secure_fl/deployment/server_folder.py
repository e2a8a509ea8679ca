"""The server's folder: all that the server's machine needs, and nothing of the coordinator's.

    federation.toml     where it listens, how long it waits (`Deployment`)
    coordinator.card    who signs roster and plan
    server.identity     the server's own keys
    tls/                authority.pem, server.pem, server.key
    seats.json          which machines are let in; read anew each time
    roster, plan        the newest, as the coordinator signed them
    begun               which plan is under way; plans/PLAN/ has it, and its roster
    closing             which plan's federation ends at the next round that others can join in
    record/PLAN/        what the server writes of a federation under that plan: its `PartyFolder`,
                        and transcript.jsonl

Guarantee: a federation goes on under the roster and plan that it began with, whatever was signed
since. Neither a key of the coordinator nor of the certificate authority is in it.
Assumes: the folder is the server's own (its keys are 0600), and one server at a time has it.
Not covered: a folder that is put back to what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from secure_fl.config_file import read_table
from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.strict_json import from_hex
from secure_fl.deployment.progress import DONE, Progress, read_progress
from secure_fl.deployment.seats import Seat, Seats
from secure_fl.deployment.settings import Deployment
from secure_fl.deployment.settings_file import check_whole_file
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.errors import DeploymentError, SecureFLError
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.parties.server_record import Journal
from secure_fl.federation.parties.server_store import KeptServer
from secure_fl.federation.place import Place
from secure_fl.federation.plan import MOST_PLAN, Plan
from secure_fl.federation.site import program_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.transcript.chain import Transcript
from secure_fl.federation.transcript.entries import plan_facts
from secure_fl.files import PUBLIC, is_file, make_folder, read_bytes, write_atomically

SETTINGS, CARD, IDENTITY, SEATS = (
    "federation.toml",
    "coordinator.card",
    "server.identity",
    "seats.json",
)
ROSTER, PLAN, TLS = "roster", "plan", "tls"
TRANSCRIPT = "transcript.jsonl"
_BEGUN, _RECORD, _PLANS, _CLOSING = "begun", "record", "plans", "closing"


@dataclass(frozen=True)
class ServerFolder:
    """An opened folder.

    Attributes:
        path: of the folder.
        settings: how machines find each other, and how long they wait.
        identity: the server's.
        coordinator: who signed roster and plan.
        signed_roster: as the coordinator signed it.
        roster: of the federation under way, or the newest where none is.
        plan: of the same, as the coordinator signed it.
        opened: the plan, checked.
    """

    path: Path
    settings: Deployment
    identity: Identity
    coordinator: Member
    signed_roster: bytes = field(repr=False)
    roster: Roster = field(repr=False)
    plan: bytes = field(repr=False)
    opened: Plan = field(repr=False)

    @classmethod
    def open(cls, path: Path, *, newest: bool = False) -> ServerFolder:
        """Read and check all of it.

        Args:
            path: of the folder.
            newest: take the newest plan, also where a federation is under way under another.

        Raises:
            ConfigError: `federation.toml` is missing, or a setting is refused.
            DeploymentError: no plan was signed, or the settings name another federation.
            RunFolderError: a file is damaged.
            FileError: one is missing, or cannot be read.
            RefusedError: roster or plan is not the coordinator's, or they do not fit each other.
            SecureSumError: the server's identity cannot be used.
        """
        settings = read_settings(path)
        coordinator = Member.from_card(read_bytes(path / CARD))
        begun = None if newest else _begun(path)
        place = path if begun is None else path / _PLANS / _short(begun)
        if not is_file(place / PLAN):
            remedy = "sign one, and copy the server's folder: `secure-fl federate sign DIR CARD...`"
            raise DeploymentError("no plan is signed", PLAN, str(place / PLAN), remedy)
        signed, plan = read_bytes(place / ROSTER), read_bytes(place / PLAN, most=2 * MOST_PLAN)
        roster = Roster.open(signed, coordinator)
        check_name_of(settings, roster)
        identity = Identity.load(path / IDENTITY)
        opened = Plan.open(plan, roster)
        Seats(path / SEATS).read()
        return cls(path, settings, identity, coordinator, signed, roster, plan, opened)

    @property
    def record(self) -> Path:
        """Where the server writes what happens under this plan."""
        return record_of(self.path, self.opened.digest)

    @property
    def tls(self) -> TlsFiles:
        """Its certificate."""
        return tls_of(self.path)

    def seats(self) -> Mapping[str, Seat]:
        """Which sites are let in, as it is now. Raises RunFolderError: damaged; FileError."""
        return Seats(self.path / SEATS).read()

    def admitted(self, name: str, certificate: str) -> Sequence[str] | None:
        """For `SessionServer`: the parties of a machine, by its certificate; see `Seats`."""
        return Seats(self.path / SEATS).admitted(name, certificate)

    @cached_property
    def program(self) -> StepProgram:
        """What the plan asks for; builds the models once."""
        return program_of(self.opened)

    @property
    def begun(self) -> bool:
        """Whether a federation under this plan is under way, or over."""
        return _begun(self.path) == self.opened.digest

    def progress(self) -> Progress | None:
        """How far that is, also while a server writes; None where nothing was written. Raises
        RunFolderError: damaged.
        """
        return read_progress(self.record, self.identity.member, self.roster.federation)

    def begin(self) -> None:
        """From now on the federation under this plan is the one under way; nothing is done where
        it is. Raises FileError: the folder cannot be written.
        """
        kept = self.path / _PLANS / _short(self.opened.digest)
        make_folder(kept)
        write_atomically(kept / ROSTER, self.signed_roster, mode=PUBLIC)
        write_atomically(kept / PLAN, self.plan, mode=PUBLIC)
        write_atomically(self.path / _BEGUN, self.opened.digest.hex(), mode=PUBLIC)

    def close(self) -> None:
        """End this federation at the end of the round that runs, or as soon after it as another can
        go on; also one whose server runs. Raises FileError: it cannot be written.
        """
        write_atomically(self.path / _CLOSING, self.opened.digest.hex(), mode=PUBLIC)

    def closing(self) -> bool:
        """Whether that was asked for; False where it cannot be read."""
        with suppress(SecureFLError):
            return _digest_in(self.path / _CLOSING) == self.opened.digest
        return False

    @property
    def rounds_left(self) -> bool:
        """Whether it is over, has not failed, and rounds are left: it was closed. Raises as
        `progress`.
        """
        found = self.progress()
        if found is None or found.outcome != DONE:
            return False
        return not self.program.done(Place(*found.place))

    def party(self) -> KeptServer:
        """The server, which goes on where an earlier life was; who has it closes its folder
        (`party.folder.close()`).

        Raises:
            RunFolderError: another server has the folder, or it is damaged.
            RefusedError: `malformed`: the transcript is damaged.
            SecureSumError: a round's journal is damaged.
            FileError: a file cannot be read or written.
        """
        self.begin()
        own = PartyFolder(self.record, self.identity, self.roster.federation)
        try:
            return KeptServer(
                self.identity,
                self.roster,
                self.plan,
                self.program,
                own,
                deadlines=self.settings.deadlines.deadlines,
                journal=self._journal(own.path / TRANSCRIPT),
            )
        except BaseException:
            own.close()
            raise

    def _journal(self, path: Path) -> Journal:
        """The transcript, begun with the plan."""
        told = Transcript.open(path) if is_file(path) else Transcript.new(path)
        if not len(told):
            evidence = (read_bytes(self.path / CARD), self.signed_roster, self.plan)
            told.append("plan", plan_facts(self.opened, self.roster), evidence)
        return Journal(told.append, told.after, lambda: told.head)


def read_settings(path: Path) -> Deployment:
    """`federation.toml` of a server's folder. Raises ConfigError: missing, cut off, or refused."""
    table = read_table(path / SETTINGS, SETTINGS, "secure-fl federate init DIR")
    check_whole_file(path / SETTINGS)
    return Deployment(**table)


def check_name_of(settings: Deployment, roster: Roster) -> None:
    """A federation keeps its name. Raises DeploymentError: the settings have another."""
    if settings.name != roster.federation:
        remedy = f'set name = "{roster.federation}"; another federation has a folder of its own'
        raise DeploymentError("is another federation's", SETTINGS, settings.name, remedy)


def tls_of(path: Path) -> TlsFiles:
    """Where the certificate of a server's folder lies."""
    tls = path / TLS
    return TlsFiles(tls / "authority.pem", tls / "server.pem", tls / "server.key")


def record_of(path: Path, digest: bytes) -> Path:
    """Where a server's folder has the record of a federation, by the digest of its plan."""
    return path / _RECORD / _short(digest)


def _short(digest: bytes) -> str:
    """A plan's folders are called so."""
    return digest.hex()[:16]


def _begun(path: Path) -> bytes | None:
    """Digest of the plan that is under way; None where there is none."""
    return _digest_in(path / _BEGUN)


def _digest_in(path: Path) -> bytes | None:
    """A digest that stands in a file alone; None where there is none."""
    if not is_file(path):
        return None
    text = read_bytes(path, most=1 << 10).decode("ascii", "replace").strip()
    return from_hex(text, path.name, 32)
