"""What a session costs beside plain gRPC with mutual TLS, on this machine, in the same run.

    python -m bench.session all
    python -m bench.session exchange [--sites 3] [--repeats 200]
    python -m bench.session upload [--sites 3] [--megabytes 50] [--repeats 5]
    python -m bench.session dead [--sites 3]
    python -m bench.session memory [--sites 3] [--megabytes 10] [--repeats 3]

Sites are processes. Session and plain gRPC take turns, one repeat each:

- `exchange`: the server says a few bytes to all sites, and all of them answer.
- `upload`: all sites send a large message at once; until the last one is there.
- `dead`: a site's process is killed; until the server is told.
- `memory`: the server's peak resident memory while all sites send a large message at once, in a
  process for each way; beside it what it had before. Plain gRPC lets go of every piece at once, a
  session hands out whole messages.

Rows go to `results/session.csv`: medians and the largest over repeats.

Claims: an exchange takes at most 10 ms with 3 sites and 50 ms with 16, and at most 3 times what it
takes with plain gRPC; a dead site is noticed within 2 s; 3 times 50 MB take at most 1.5 times as
long; the server's memory with 16 sites is at most 1.2 times that with 3.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness import append_row, provenance
from bench.plain_grpc import PlainServer, plain_site
from secure_fl.deployment.certificates import CertificateAuthority, new_request
from secure_fl.engines.session.dialling import SessionClient
from secure_fl.engines.session.link import Arrived, Back, Event, Lost
from secure_fl.engines.session.serving import SessionServer
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.federation.parties.party import Message
from secure_fl.files import write_atomically

CSV = "session.csv"
WAYS = ("session", "plain gRPC")
_BUSY = 2.0
_MOST = 1 << 30


def certificates(folder: Path, names: list[str]) -> dict[str, TlsFiles]:
    """Files of the server and of sites."""
    authority, found = CertificateAuthority.new(folder, "bench"), {}
    for name in names:
        if name == "server":
            certificate, key = authority.server(["127.0.0.1"])
        else:
            request, key = new_request(name)
            certificate = authority.site(name, request)
        files = [folder / "authority.pem", folder / f"{name}.pem", folder / f"{name}.key"]
        found[name] = TlsFiles(*files)
        write_atomically(found[name].certificate, certificate)
        write_atomically(found[name].key, key)
    return found


def site(name: str, ports: Any, tls: TlsFiles, size: int) -> None:
    """A site's process, on one or both ways, until it is ended."""
    blob = os.urandom(size)
    session, plain = ports.recv()
    threads = []
    if plain:
        threads.append(threading.Thread(target=plain_site, args=(plain, tls, blob), daemon=True))
    if session:
        threads.append(
            threading.Thread(target=_session_site, args=(name, session, tls, blob), daemon=True)
        )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _session_site(name: str, port: int, tls: TlsFiles, blob: bytes) -> None:
    link = SessionClient(f"127.0.0.1:{port}", tls, name, [name])
    while True:
        event = link.receive(1.0)
        if isinstance(event, Arrived):
            large = bytes(event.data) == b"large"
            link.send(name, Message("server", blob if large else b"a few bytes"))
        elif isinstance(event, Lost) and event.reason == "closed":
            return link.close()


class Both:
    """A server for each way, and sites that have a stream to each.

    Args:
        tls: by name.
        ways: that are to be measured here.
    """

    def __init__(self, tls: dict[str, TlsFiles], ways: tuple[str, ...]) -> None:
        self.names = [name for name in tls if name != "server"]
        seats = {name: [name] for name in self.names}
        self.session = self.plain = None
        if WAYS[0] in ways:
            self.session = SessionServer(
                "127.0.0.1", 0, tls["server"], lambda name, _: seats.get(name), most=_MOST
            )
        if WAYS[1] in ways:
            self.plain = PlainServer(tls["server"], len(self.names))

    @property
    def ports(self) -> tuple[int, int]:
        """Of both; 0 for one that is not there."""
        return self.session.port if self.session else 0, self.plain.port if self.plain else 0

    def wait(self) -> None:
        """Until every site is there on every way."""
        if self.session:
            for _ in self.names:
                self.next(Back)
        if self.plain:
            self.plain.wait_for(len(self.names))

    def next(self, kind: type[Event]) -> Any:
        """The session's next event of a kind."""
        assert self.session is not None
        ends = time.monotonic() + 300
        while time.monotonic() < ends:
            event = self.session.receive(1.0)
            if isinstance(event, kind):
                return event
        raise AssertionError(f"no {kind.__name__}")

    def ask(self, way: str, word: bytes) -> float:
        """Seconds until every site has answered."""
        begun = time.perf_counter()
        if way == WAYS[0]:
            assert self.session is not None
            for name in self.names:
                self.session.send("server", Message(name, word))
            for _ in self.names:
                self.next(Arrived)
        else:
            assert self.plain is not None
            self.plain.say(word)
            for _ in self.names:
                self.plain.arrived.get(timeout=300)
        return time.perf_counter() - begun

    def close(self) -> None:
        """End all."""
        if self.session:
            self.session.close()
        if self.plain:
            self.plain.close()


@contextmanager
def running(sites: int, size: int, ways: tuple[str, ...] = WAYS) -> Iterator[tuple[Both, Any]]:
    """Both servers here and so many sites, each in a process that nothing of gRPC was made in."""
    with tempfile.TemporaryDirectory() as folder:
        tls = certificates(Path(folder), ["server", *(f"site-{one:02d}" for one in range(sites))])
        fork, made = multiprocessing.get_context("fork"), list[tuple[BaseProcess, Any]]()
        for name, files in tls.items():
            if name != "server":
                here, there = fork.Pipe()
                process = fork.Process(target=site, args=(name, there, files, size), daemon=True)
                process.start()
                made.append((process, here))
        both = Both(tls, ways)
        try:
            for _, pipe in made:
                pipe.send(both.ports)
            both.wait()
            yield both, [process for process, _ in made]
        finally:
            both.close()
            for process, _ in made:
                process.join(5)
                process.kill()


def timed(word: bytes, arguments: argparse.Namespace, size: int) -> list[dict[str, object]]:
    """Both ways in turn."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with running(arguments.sites, size) as (both, _):
        for number in range(arguments.repeats + 1):
            for way in WAYS if number % 2 else WAYS[::-1]:
                found = both.ask(way, word)
                if number:
                    times[way].append(found)
    return [_row(arguments, way, seconds=times[way]) for way in WAYS]


def dead(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Each site is killed in turn; both ways notice the same death."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with running(arguments.sites, 0) as (both, processes):
        for process in processes:
            begun = time.perf_counter()
            process.kill()
            for way, when in _noticed(both):
                times[way].append(when - begun)
    return [_row(arguments, way, seconds=times[way]) for way in WAYS]


def _noticed(both: Both) -> list[tuple[str, float]]:
    """When the next death was noticed, by way."""
    found = list[tuple[str, float]]()

    def plainly() -> None:
        assert both.plain is not None
        both.plain.lost.get(timeout=60)
        found.append((WAYS[1], time.perf_counter()))

    other = threading.Thread(target=plainly)
    other.start()
    both.next(Lost)
    found.append((WAYS[0], time.perf_counter()))
    other.join()
    return found


def memory(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One way, in this process alone."""
    with running(arguments.sites, arguments.megabytes * 10**6, (arguments.way,)) as (both, _):
        both.ask(arguments.way, b"small")
        before = _resident("VmRSS")
        times = [both.ask(arguments.way, b"large") for _ in range(arguments.repeats)]
        peak = _resident("VmHWM")
    return [_row(arguments, arguments.way, seconds=times, before=before, peak=peak)]


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _row(
    arguments: argparse.Namespace,
    way: str,
    *,
    seconds: list[float],
    before: int | str = "",
    peak: int | str = "",
) -> dict[str, object]:
    return {
        "part": arguments.part,
        "way": way,
        "sites": arguments.sites,
        "megabytes": arguments.megabytes if arguments.part in ("upload", "memory") else "",
        "repeats": len(seconds),
        "seconds": f"{median(seconds):.5f}",
        "most": f"{max(seconds):.5f}",
        "before_bytes": before,
        "peak_bytes": peak,
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def measure(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """The rows of one part."""
    if arguments.part == "exchange":
        return timed(b"small", arguments, 0)
    if arguments.part == "upload":
        return timed(b"large", arguments, arguments.megabytes * 10**6)
    return dead(arguments) if arguments.part == "dead" else memory(arguments)


def everything() -> None:
    """Every part in a process of its own, as peak memory never goes down."""
    parts = [["exchange", "--sites=3"], ["exchange", "--sites=16", "--repeats=100"], ["dead"]]
    parts += [["upload", "--sites=3", "--megabytes=50"], ["upload", "--sites=16", "--megabytes=10"]]
    for sites in (3, 16):
        for way in WAYS:
            parts.append(["memory", f"--sites={sites}", "--megabytes=10", f"--way={way}"])
        parts.append(["memory", f"--sites={sites}", "--megabytes=50"])
    for part in parts:
        subprocess.run([sys.executable, "-m", "bench.session", *part], check=True)


def main() -> None:
    """Measure one part, and add its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", choices=("all", "exchange", "upload", "dead", "memory"))
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--way", choices=WAYS, default=WAYS[0])
    arguments = parser.parse_args()
    if arguments.part == "all":
        everything()
        return
    usual = {"exchange": 200, "upload": 5, "memory": 3}
    arguments.repeats = arguments.repeats or usual.get(arguments.part, 1)
    where = provenance(["grpcio"])
    if os.getloadavg()[0] > _BUSY:
        print("the machine is busy: measure again when it is quiet")
    for row in measure(arguments):
        append_row(CSV, row, where)
        print(row)


if __name__ == "__main__":
    main()
