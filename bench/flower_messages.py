"""What an exchange costs where Flower's own messages carry it, with stock SuperNodes, on this
machine: over TLS, with node keys, a process for every message.

    python -m bench.flower_messages [--sites 3] [--exchanges 5] [--megabytes 0 1 10]

For each size: the server says a few bytes to all sites and each answers with so many; one round is
so many exchanges. Rows go to `results/flower_messages.csv`: seconds of a round, of the median and
longest exchange, and, from the second size on, seconds a MB of all sites together beyond the first.

Claim: a round of five exchanges with few bytes takes at most 100 s with 3 sites.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from bench.harness import ROOT, append_row, provenance
from secure_fl.deployment.certificates import CertificateAuthority
from secure_fl.engines.flower.bundle import app_files, bundle
from secure_fl.engines.flower.control import new_node_key
from secure_fl.engines.flower.door import Door, DoorLink
from secure_fl.engines.flower.grid import GridLink
from secure_fl.engines.flower.launching import SERVER_FOLDER, SuperLink, SuperNode, free_port
from secure_fl.engines.session.link import Arrived
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.federation.parties.party import Message
from secure_fl.files import make_folder, read_bytes, write_atomically, write_json

CSV = "flower_messages.csv"
_SEATS, _TOLD, _WORK = "seats.json", "told.json", "work.json"
_MB = 1_000_000
SERVER = f"""\
import sys
sys.path.append({str(ROOT)!r})
from flwr.serverapp import ServerApp
from bench.flower_messages import serve
app = ServerApp()
app.main()(serve)
"""


@dataclass(frozen=True)
class Seat:
    """Of a site, as the server knows it."""

    parties: tuple[str, ...]
    node: bytes
    revoked: bool = False


def site(folder: Path) -> None:
    """Answers every message with as many bytes as it asks for."""
    link = DoorLink(Door(folder))
    while True:
        event = link.receive(1.0)
        if isinstance(event, Arrived):
            link.send(event.to, Message("server", os.urandom(max(1, int(event.data)))))


def serve(grid: Any, _: object) -> None:
    """The server's side: rounds of exchanges, timed."""
    folder = Path(os.environ[SERVER_FOLDER])
    work = json.loads(read_bytes(folder / _WORK))
    keys = json.loads(read_bytes(folder / _SEATS))
    seats = {name: Seat((name,), key.encode()) for name, key in keys.items()}
    link = GridLink(grid, lambda: seats, "bench", ttl=600.0)
    while len(link.peers) < len(seats):
        link.receive(1.0)
    told = [
        [exchange(link, list(seats), int(size * _MB)) for _ in range(work["exchanges"])]
        for size in work["megabytes"]
    ]
    write_json(folder / _TOLD, told)


def exchange(link: GridLink, sites: list[str], size: int) -> float:
    """Seconds until every site has answered."""
    began, left = time.perf_counter(), len(sites)
    for name in sites:
        link.send("server", Message(name, str(size).encode()))
    while left:
        left -= isinstance(link.receive(1.0), Arrived)
    return time.perf_counter() - began


def node_key(folder: Path) -> str:
    """A new key of a node, in a folder; the public part."""
    private, public = new_node_key()
    make_folder(folder)
    write_atomically(folder / "node", private)
    write_atomically(folder / "node.pub", public)
    return public.decode()


def superlink(folder: Path, app: bytes, stack: ExitStack) -> tuple[SuperLink, str, Path]:
    """One that runs; its address, and the authority of its certificate."""
    authority = CertificateAuthority.new(folder / "ca", "bench")
    pem, key = authority.server(["localhost", "127.0.0.1"])
    for name, data in (("authority", authority.pem), ("server", pem), ("key", key)):
        write_atomically(folder / name, data)
    tls = TlsFiles(folder / "authority", folder / "server", folder / "key")
    listens = SimpleNamespace(host="localhost", port=free_port(), bind="127.0.0.1")
    link = SuperLink(folder / "superlink", listens, tls, server=folder, app=app)
    stack.callback(link.stop)
    link.start()
    return link, f"localhost:{listens.port}", tls.authority


def measured(folder: Path, sites: int, work: dict[str, Any], stack: ExitStack) -> list[list[float]]:
    """Seconds of each exchange, by size."""
    app = bundle({**app_files("bench", "exchanging:app"), "exchanging.py": SERVER.encode()})
    link, address, authority = superlink(folder, app, stack)
    digest, keys = hashlib.sha256(app).hexdigest(), dict[str, str]()
    for own in (folder / f"site-{number}" for number in range(sites)):
        keys[own.name] = node_key(own)
        link.register(own / "node.pub")
        node = SuperNode(own / "flower", address, authority, own / "node", own, app=digest)
        stack.callback(node.stop)
        node.start()
        process = multiprocessing.get_context("spawn").Process(target=site, args=(own,))
        process.start()
        stack.callback(process.kill)
    write_json(folder / _SEATS, keys)
    write_json(folder / _WORK, work)
    run = link.submit()
    while not (state := link.state(run)).startswith("finished"):
        time.sleep(2.0)
    if state != "finished:completed":
        raise SystemExit(f"{state}: see {link.log}")
    told: list[list[float]] = json.loads(read_bytes(folder / _TOLD))
    return told


def main() -> None:
    """Measure, and write a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--exchanges", type=int, default=5)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.0, 1.0, 10.0])
    asked = parser.parse_args()
    where, load = provenance(["flwr"]), os.getloadavg()[0]
    work = {"exchanges": asked.exchanges, "megabytes": asked.megabytes}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        told = measured(Path(folder), asked.sites, work, stack)
    first = median(told[0])
    for size, found in zip(asked.megabytes, told, strict=True):
        more = (median(found) - first) / (asked.sites * size) if size else 0.0
        row = {
            "sites": asked.sites,
            "megabytes": size,
            "exchanges": len(found),
            "round_s": round(sum(found), 1),
            "median_s": round(median(found), 2),
            "longest_s": round(max(found), 2),
            "s_per_mb": round(more, 3),
            "load_before": round(load, 1),
            "load_after": round(os.getloadavg()[0], 1),
        }
        append_row(CSV, row, where)
        print(row)


if __name__ == "__main__":
    main()
