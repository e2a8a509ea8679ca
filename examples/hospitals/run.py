"""A private clustered federation of three clinics, in processes of their own, with two accidents.

It types what a coordinator, a server's operator and three clinics would type, kills a clinic and
later the server with `kill -9`, starts them again, checks the record, and looks for what only a
clinic may have in everything that the server keeps. Only this machine is spoken to, but for one
wheel with the recordings. Run it as: python run.py [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import evidence
from outcome import embedded, ledgers, table
from recordings import CLINICS, clinics, fetch
from stage import Stage, StageError, free_ports, say

CONFIG = Path(__file__).with_name("config.toml")
COORDINATOR, SERVER = "coordinator", "server"
FEWEST = 4
CLUSTER = 2
"""The step in which pools are trained, after the two that find the groups."""
CALLED_FAILED = 240.0
"""Seconds for which Flower may take a killed server for one that runs: it waits for 60 after the
last that it heard of it, and a busy machine is late with all of that.
"""


def main() -> None:
    """Play it all; 0 where everything was as it must be."""
    options = _options()
    out = options.out.resolve()
    if out.exists():
        raise SystemExit(f"{out} is there already: delete it, or name another with --out")
    try:
        with Stage(out) as stage:
            Play(stage, options).all()
    except StageError as error:
        print(f"\nfailed: {error}\nlogs are in {out / 'logs'}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started is stopped", file=sys.stderr)
        raise SystemExit(130) from None
    if not options.keep:
        shutil.rmtree(out)


def _options() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--out", type=Path, default=Path("hospitals"), help="folder for everything")
    words.add_argument("--transport", choices=("session", "messages"), default="session")
    words.add_argument("--direct", action="store_true", help="without Flower")
    words.add_argument("--keep", action="store_true", help="leave the folder when all went well")
    words.add_argument("--rounds", type=int, help="of training, fewer for a short look")
    words.add_argument("--wheel", type=Path, help="folder that has the wheel with the recordings")
    found = words.parse_args()
    if found.rounds is not None and found.rounds < FEWEST:
        words.error(f"--rounds: {FEWEST} at least, for two accidents")
    if found.direct and found.transport == "messages":
        words.error("--direct: messages are Flower's")
    return found


class Play:
    """The whole of it, in order.

    Args:
        stage: where.
        options: how.
    """

    def __init__(self, stage: Stage, options: argparse.Namespace) -> None:
        self.stage, self.options, self.folder = stage, options, stage.folder
        self.launch = "direct" if options.direct else "flower"
        self.patience = 900.0 if options.transport == "session" else 7200.0
        self.marks: dict[str, set[bytes]] = {name: set() for name in CLINICS}
        self.files: dict[str, Path] = {}
        self.before = 0

    def all(self) -> None:
        """From the data to the table."""
        self.data()
        self.enrol()
        try:
            self.begin()
            self.accidents()
            self.end()
        finally:
            self.tidy()
        self.verify()
        self.search()
        self.show()

    def data(self) -> None:
        """Each clinic's own file, in a folder with a name that nobody else may learn."""
        say("three clinics' recordings: each patient's two arms are two clients")
        arrays = clinics(fetch(self.options.wheel or self.folder / "wheel"))
        for name, own in arrays.items():
            mark = evidence.mark()
            path = self.folder / "data" / name / mark / "watch.npz"
            path.parent.mkdir(parents=True)
            np.savez(path, **own, note=np.array([mark] * len(own["y"])))
            self.files[name] = path
            self.marks[name] |= {mark.encode(), *evidence.windows_of(own["x"])}
        config = CONFIG.read_text()
        if self.options.rounds:
            config = re.sub(r"(?m)^rounds = .*", f"rounds = {self.options.rounds}", config)
        (self.folder / "config.toml").write_text(config)

    def enrol(self) -> None:
        """Keys, certificates, roster, plan and policies."""
        say("the coordinator begins a federation, and each clinic makes its keys")
        begun = self.stage.do(
            COORDINATOR, "federate", "init", "fl", "--name", "clinics", "--host", "localhost",
            "--config", "config.toml", "--launch", self.launch,
            "--transport", self.options.transport,
        )  # fmt: skip
        fingerprint = _found(r"coordinator's fingerprint ([0-9a-f]{64})", begun)
        self._ports(self.folder / "fl" / "server" / "federation.toml")
        cards = {name: self._init(name) for name in CLINICS}
        say("the coordinator compares fingerprints, and signs roster and plan")
        names = [f"{name}/key-card" for name in CLINICS]
        signed = "".join(
            self.stage.do(COORDINATOR, "federate", "sign", "fl", *names, "--yes").split()
        )
        if missing := [name for name, told in cards.items() if told not in signed]:
            raise StageError(f"other fingerprints than those of {', '.join(missing)}")
        shutil.copytree(self.folder / "fl" / "server", self.folder / "server")
        say("each clinic takes its invitation, and holds the plan against its policy and its data")
        for name in CLINICS:
            invitation = f"fl/invitations/{name}.invitation"
            self.stage.do(name, "site", "join", name, invitation, "--coordinator", fingerprint)
            self.stage.do(name, "site", "check", name, "--no-reach")

    def _init(self, name: str) -> str:
        """A clinic's folder; the fingerprint of its key card."""
        more = ("--data", str(self.files[name]), "--clients-by", "client", "--label", "y")
        said = self.stage.do(
            name, "site", "init", name, "--name", name, *more, "--config", "config.toml"
        )
        policy, mark = self.folder / name / "policy.toml", evidence.mark()
        policy.write_text(policy.read_text() + f"\n# {mark}\n")
        self.marks[name].add(mark.encode())
        return _found(r"fingerprint ([0-9a-f]{64})", said)

    def _ports(self, settings: Path) -> None:
        """Free ports, on loopback only."""
        own, flower = free_ports(2)
        text = settings.read_text().replace('bind = "0.0.0.0"', 'bind = "127.0.0.1"')
        text = re.sub(r"(?m)^port = 9443$", f"port = {own}", text)
        settings.write_text(re.sub(r"(?m)^port = 9092$", f"port = {flower}", text))

    def begin(self) -> None:
        """Four processes, and with Flower its own."""
        say(f"the server and the three clinics start (launch = {self.launch}, "
            f"transport = {self.options.transport})")  # fmt: skip
        self.stage.start(SERVER, SERVER, "federate", "start", "server")
        if self.launch == "flower":
            self.stage.wait("SuperLink", 120.0, self._settled)
        for name in CLINICS:
            self.stage.start(name, name, "site", "run", name)

    def accidents(self) -> None:
        """A clinic is killed, and later the server; both go on from their folders."""
        rounds = self.options.rounds or 12
        self._reach(CLUSTER, max(1, rounds // 6))
        victim = list(CLINICS)[-1]
        self.stage.kill(victim)
        say(f"kill -9 {victim}: its 6 clients are silent; the others wait for them")
        self.stage.start(victim, victim, "site", "run", victim)
        self._reach(CLUSTER, max(1, rounds // 6) + 1)
        say(f"{victim} went on in the same round, from its folder")
        self._reach(CLUSTER, max(2, rounds // 2))
        os.kill(self._server(), signal.SIGKILL)
        code = self.stage.ended(SERVER, CALLED_FAILED)
        say(f"kill -9 the server: secure-fl federate start ended with {code}")
        self.stage.do(SERVER, "federate", "status", "server", accept=(4,))
        self.stage.start(SERVER, SERVER, "federate", "resume", "server")

    def end(self) -> None:
        """Until everybody says that it is over."""
        for name in (*CLINICS, SERVER):
            if code := self.stage.ended(name, self.patience, self._told):
                raise StageError(f"{name} ended with {code}:\n{self.stage.tail(name)}")
        say("the federation is done; all processes ended with 0")
        if peak := self._superlink("VmHWM"):
            say(f"the SuperLink had {self.before} MB before anybody came, {peak} MB at most")

    def tidy(self) -> None:
        """Stop what still runs, and then Flower's programs, which outlive who started them: a
        clinic that runs would start its SuperNode again.
        """
        self.stage.stop_all()
        if self.launch == "direct":
            return
        from secure_fl.engines.flower.processes import Program

        self.stage.do(SERVER, "federate", "stop", "server", accept=(0, 1, 4))
        for name in CLINICS:
            Program(self.folder / name / "flower", "supernode").stop()

    def verify(self) -> None:
        """The server's record, and a client's own."""
        say("an auditor checks the server's record, and one client's")
        for folder in (self._record(), self._party("clinic-a")):
            self.stage.do("auditor", "verify", str(folder.relative_to(self.folder)))

    def search(self) -> None:
        """What only a clinic may have is nowhere in what the server and the SuperLink keep."""
        for name in CLINICS:
            own = self.folder / name
            self.marks[name] |= set(evidence.keys_in(own))
            self.marks[name] |= set(evidence.keys_in(self.folder / "state" / name))
            for model in sorted((own / "model").rglob("*.safetensors")):
                self.marks[name] |= set(evidence.tensors_of(model))
        marks = {each for own in self.marks.values() for each in own}
        logs = self.folder / "logs" / SERVER
        hits, wanted, files = evidence.search(marks, [self.folder / "server", logs])
        if hits:
            raise StageError("a clinic's secret is at the server:\n" + "\n".join(hits[:20]))
        there, *_ = evidence.search(marks, [self.folder / "clinic-a", self.folder / "data"])
        if not there:
            raise StageError("the search does not find what is there")
        say(f"{wanted} marks (words, numbers of data and models, keys): none in the {files} files "
            f"and logs of server and SuperLink; {len(there)} in the clinics' own")  # fmt: skip

    def show(self) -> None:
        """How each client fares, and what was spent."""
        say("the same computation in one process, to compare with")
        alone = embedded(self.stage, self.folder, self.files)
        print(table(self.folder, list(CLINICS), alone))
        print(ledgers(self.folder, list(CLINICS)))

    # Where they are

    def _record(self) -> Path:
        return next((self.folder / SERVER / "record").iterdir())

    def _party(self, name: str) -> Path:
        """The folder of a clinic's first client."""
        return sorted(next((self.folder / name / "parties").iterdir()).iterdir())[0]

    def _server(self) -> int:
        """The number of the server's process."""
        told = json.loads((self.folder / SERVER / "present.json").read_text())
        return int(told["process"])

    def _settled(self) -> bool:
        """Whether the SuperLink has the memory that it had two seconds ago."""
        time.sleep(2.0)
        last, self.before = self.before, self._superlink("VmRSS")
        return 0 < last == self.before

    def _superlink(self, field: str) -> int:
        """Of its process' memory, in MB, as Linux tells; 0 where there is none."""
        path = self.folder / SERVER / "superlink" / "superlink.json"
        note = json.loads(path.read_text()) if path.is_file() else {"process": 0}
        status = Path(f"/proc/{note['process']}/status")
        told = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.is_file() else None
        return int(told[1]) // 1000 if told else 0

    def _reach(self, step: int, rounds: int) -> None:
        """Wait until the first clinic has come so far."""
        where = f"round {rounds} of step {step}"
        self.stage.wait(where, self.patience, lambda: self._place() >= [step, rounds], self._told)

    def _place(self) -> list[int]:
        path = self.folder / "clinic-a" / "status.json"
        return (json.loads(path.read_text())["place"] or [0, 0]) if path.is_file() else [0, 0]

    def _told(self) -> str:
        """How far it is."""
        step, done = self._place()
        if step > CLUSTER:
            return "  all rounds done"
        return f"  {('centre', 'sketch', 'pools')[step]}: {done} rounds done"


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise StageError(f"nothing like {pattern} in:\n{text}")
    return match[1]


if __name__ == "__main__":
    main()
