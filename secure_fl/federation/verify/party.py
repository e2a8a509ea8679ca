"""One party's folder against itself: whose it is, and what it says beside the transcript in it.

Guarantee: where nothing is found, files in the open are as their owner wrote them, byte for byte;
the owner is the member that the transcript names; the transcript reaches as far as its owner had
come, by what it wrote beside; and a client's ledger begins with all that came along from the plan
before, holds releases of its own alone, of rounds that it was called to, and one of every sum of
pre-training that it is in, where the plan is private.
Assumes: not everything was put together anew, which the owner's own key would show.
Not covered: what is sealed under that key, in which its owner finds damage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from secure_fl.crypto.envelope import body_of
from secure_fl.errors import SecureFLError
from secure_fl.federation.parties.party_folder import (
    BEFORE,
    CHECK,
    HEAD,
    OWNER,
    SUCCESSOR,
    checked,
)
from secure_fl.federation.plan import Plan
from secure_fl.federation.transcript.chain import START, Line
from secure_fl.federation.transcript.entries import JoinedEntry, PlanEntry
from secure_fl.federation.verify.folder import ReadFolder
from secure_fl.federation.verify.privacy import LEDGER
from secure_fl.federation.verify.rounds import FILE, Rounds
from secure_fl.files import is_file
from secure_fl.privacy.chain import Mark
from secure_fl.privacy.ledger import NOISED_BY_KEY_HOLDER, PrivacyLedger, Release

_OPEN = ("progress", "state", "plan", HEAD, BEFORE, SUCCESSOR)
_TRAINED = ("pretrain", "cluster")
"""Steps in which every release is of the round that its client was called to."""


@dataclass
class Party:
    """The folder of one party.

    Args:
        folder: where it is read, and where findings go.
        lines: of the transcript.
        rounds: what they say.
    """

    folder: ReadFolder
    lines: Sequence[Line]
    rounds: Rounds

    def check(self, ledger: PrivacyLedger | None) -> Plan | None:
        """Everything, each thing once; the plan that a client accepted."""
        data = self.folder.read(OWNER)
        self.folder.covered.add(OWNER)
        words = (data or b"")[CHECK:].decode("utf-8", errors="replace").split(" ")
        sound = data is not None and checked("", OWNER, data[CHECK:]) == data[:CHECK]
        if not sound or len(words) != 5 or data is None:
            self.folder.found(OWNER, "content", "damaged: not as its owner wrote it")
            return None
        role, name, _, federation, fingerprint = words
        self._owner(name, federation, fingerprint)
        files = {each: self._file(each, data[CHECK:].decode()) for each in _OPEN}
        self._reached(files)
        plan = self._plan(files["plan"]) if role == "client" else None
        if role == "client":
            self._ledger(name, ledger, plan, self._came_with(files[BEFORE], ledger))
        self.folder.checked.append(("owner", f"{role} {name}, fingerprint {fingerprint}"))
        return plan

    @cached_property
    def _planned(self) -> PlanEntry | None:
        plans = [line.entry for line in self.lines if isinstance(line.entry, PlanEntry)]
        return plans[-1] if plans else None

    def _owner(self, name: str, federation: str, fingerprint: str) -> None:
        joined = {
            line.entry.fingerprint
            for line in self.lines
            if isinstance(line.entry, JoinedEntry) and line.entry.client == name
        }
        if self._planned is not None and self._planned.federation != federation:
            self.folder.found(FILE, "plan.federation", f"the folder is a member's of {federation}")
        elif joined and fingerprint not in joined:
            self.folder.found(FILE, "joined.fingerprint", f"not that of {name}, whose folder it is")

    def _file(self, name: str, whose: str) -> bytes | None:
        """A file in the open, None where there is none, or it is damaged."""
        if not is_file(self.folder.folder / name):
            return None
        data = self.folder.read(name) or b""
        self.folder.covered.add(name)
        if checked(whose, name, data[CHECK:]) == data[:CHECK]:
            return data[CHECK:]
        self.folder.found(name, "content", "damaged, or another party's")
        return None

    def _reached(self, files: dict[str, bytes | None]) -> None:
        """The transcript goes as far as its owner had come."""
        heads = {START.hex(), bytes(32).hex(), *(line.head.hex() for line in self.lines)}
        said = (files[HEAD] or b"").decode("ascii", errors="replace")
        if files["progress"] is not None:
            found = self.folder.parsed("progress", files["progress"], "content", dict[str, object])
            said = str((found or {}).get("head", ""))
        if said and said not in heads:
            self.folder.found(FILE, "last line", "its owner had come further, or to other lines")

    def _plan(self, data: bytes | None) -> Plan | None:
        """The plan that a client accepted, as the transcript names it."""
        if data is None or self._planned is None:
            return None
        try:
            plan = Plan.decode(body_of(data))
        except SecureFLError as problem:
            self.folder.found("plan", "content", problem.problem)
            return None
        if plan.digest.hex() != self._planned.digest:
            self.folder.found("plan", "content", "not the plan that the transcript names")
            return None
        return plan

    def _came_with(self, data: bytes | None, ledger: PrivacyLedger | None) -> Mark | None:
        """How far the ledger had come under the plan before; None where there was none."""
        found = {} if data is None else self.folder.parsed(BEFORE, data, "content", dict[str, Any])
        if ledger is None or not found or not found["ledger"]:
            return None
        mark = Mark(*found["ledger"])
        for problem in ledger.lost([("the plan before", mark)]):
            self.folder.found(LEDGER, "releases", problem)
        return mark

    def _ledger(
        self, name: str, ledger: PrivacyLedger | None, plan: Plan | None, mark: Mark | None
    ) -> None:
        """A client's own releases against the rounds that it was called to, and is in."""
        asked = {place for place, names in self.rounds.asked.items() if name in names}
        config = None if plan is None else plan.config
        unit = "none" if config is None else config.privacy.unit
        private = config is not None and (unit != "none" or config.noises_sketches)
        if ledger is None:
            if private and asked and not is_file(self.folder.folder / LEDGER):
                self.folder.found(LEDGER, "file", "missing, though the plan is private")
            return
        own = [each for each in ledger.since(mark) if _of_the_run(each)]
        number = plan.clients.index(name) if plan is not None and name in plan.clients else None
        others = {one for each in own for one in each.subjects} - {number}
        if number is not None and others:
            self.folder.found(LEDGER, "subjects", f"releases of others than {name}")
        charged = {(each.phase, each.round) for each in own if each.phase in _TRAINED}
        for step, at in sorted(charged - asked):
            told = f"{step}, round {at + 1}: charged, and no call of the transcript asks for it"
            self.folder.found(FILE, "last line", told)
        steps = {step for step, _ in charged} | ({"pretrain"} if unit != "none" else set())
        steps |= set(_TRAINED) if unit == "client" else set()
        within = {
            (begun.step, begun.place[1])
            for _, begun, total in self.rounds.sums
            if name in total.survivors and begun.step in steps
        }
        for step, at in sorted(within - charged):
            told = f"{step}, round {at + 1}: in its sum, and not charged"
            self.folder.found(LEDGER, "releases", told)


def _of_the_run(release: Release) -> bool:
    """Whether a release is this run's and its client's: not of one before, nor the key holder's."""
    return release.history is None and release.purpose != NOISED_BY_KEY_HOLDER
