"""Two hosts, in network namespaces: the way between them is cut, slow, or leads elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.session.certificates import Authority
from engines.session.ends import true

pytestmark = pytest.mark.slow
HOST = "server.example"


def ran(*command: str) -> bool:
    """Whether a command did what it was to do."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def missing() -> str:
    """Why there are no namespaces here; empty where there are."""
    if shutil.which("ip") is None:
        return "there is no `ip` command"
    name = f"sfl-try-{os.getpid()}"
    if not ran("ip", "netns", "add", name):
        return "network namespaces are not allowed here"
    near, far = f"t{os.getpid()}a", f"t{os.getpid()}b"
    paired = ran("ip", "link", "add", near, "type", "veth", "peer", "name", far)
    ran("ip", "link", "del", near)
    ran("ip", "netns", "del", name)
    return "" if paired else "pairs of network devices are not allowed here"


class Hosts:
    """A server's host and a site's, and the way between them.

    Attributes:
        folder: of files that both read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, number = folder, os.getpid() % 10_000
        self._names = {end: f"sfl-{end}-{number}" for end in ("server", "site")}
        self._devices = {end: f"sf{end[:3]}{number}" for end in self._names}
        self._processes = list[subprocess.Popen[str]]()
        for name in self._names.values():
            _must("ip", "netns", "add", name)
        near, far = self._devices.values()
        _must("ip", "link", "add", near, "type", "veth", "peer", "name", far)
        for end, name in self._names.items():
            _must("ip", "link", "set", self._devices[end], "netns", name)
            self.at(end, "ip", "link", "set", "lo", "up")
            self.at(end, "ip", "link", "set", self._devices[end], "up")
        self.at("site", "ip", "addr", "add", "10.77.0.2/24", "dev", self._devices["site"])
        self.address("10.77.0.1")

    def at(self, end: str, *command: str) -> None:
        """Run a command on a host."""
        _must("ip", "netns", "exec", self._names[end], *command)

    def address(self, address: str) -> None:
        """Give the server this address alone, by which the site finds it from now on."""
        device = self._devices["server"]
        self.at("server", "ip", "addr", "flush", "dev", device)
        self.at("server", "ip", "addr", "add", f"{address}/24", "dev", device)
        hosts = Path("/etc/netns") / self._names["site"] / "hosts"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        # written in place: the file itself is what a running process sees as /etc/hosts
        hosts.write_text(f"127.0.0.1 localhost\n{address} {HOST}\n")

    def cut(self, *, off: bool) -> None:
        """Cut the way, so that nobody is told; or mend it."""
        self.at("site", "ip", "link", "set", self._devices["site"], "down" if off else "up")

    def slow(self, *shape: str) -> bool:
        """Whether the way could be made so at both ends."""
        done = [
            ran(
                *("ip", "netns", "exec", self._names[end]),
                *("tc", "qdisc", "replace", "dev", self._devices[end], "root", *shape),
            )
            for end in self._names
        ]
        return all(done)

    def start(self, end: str, *arguments: str) -> Path:
        """Start one end; the file that it writes its events to."""
        path = self.folder / f"{end}.log"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
        program = f"from engines.session.test_hosts import {end}_host; {end}_host()"
        command = ["ip", "netns", "exec", self._names[end], sys.executable, "-c", program]
        with path.open("w") as log:
            self._processes.append(
                subprocess.Popen(
                    [*command, str(self.folder), *arguments],
                    stdout=log,
                    stdin=subprocess.PIPE,
                    env=environment,
                    text=True,
                )
            )
        return path

    def close(self) -> None:
        """Leave nothing behind."""
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        for name in self._names.values():
            ran("ip", "netns", "del", name)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def _must(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def server_host() -> None:
    """Answer whatever arrives by its size; tell every event."""
    from secure_fl.engines.session.link import Arrived
    from secure_fl.engines.session.serving import SessionServer
    from secure_fl.federation.parties.party import Message

    files = _files("server")
    seats = {"north": ["a"]}
    link = SessionServer("0.0.0.0", 9443, files, lambda name, _: seats.get(name), most=1 << 26)
    while True:
        event = link.receive(1.0)
        if isinstance(event, Arrived):
            print("arrived", len(event.data), flush=True)
            link.send("server", Message("a", bytes(len(event.data))))
        elif event is not None:
            print(event, flush=True)


def site_host() -> None:
    """Say so many bytes whenever the server can be reached, and again once they are answered."""
    from secure_fl.engines.session.dialling import SessionClient
    from secure_fl.engines.session.link import Arrived, Back
    from secure_fl.federation.parties.party import Message

    link, size = SessionClient(f"{HOST}:9443", _files("north"), "north", ["a"]), int(sys.argv[2])
    while True:
        event = link.receive(1.0)
        if event is not None:
            print("arrived" if isinstance(event, Arrived) else event, flush=True)
        if isinstance(event, Arrived):
            time.sleep(0.2)
        if isinstance(event, Arrived | Back):
            link.send("a", Message("server", bytes(size)))


def _files(name: str) -> Any:
    from secure_fl.engines.session.tls import TlsFiles

    folder = Path(sys.argv[1])
    return TlsFiles(*(folder / end for end in ("ca.pem", f"{name}.pem", f"{name}.key")))


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if reason := missing():
        pytest.skip(reason)
    authority = Authority(tmp_path)
    authority.files("server", hosts=(HOST,))
    authority.files("north")
    made = Hosts(tmp_path)
    try:
        yield made
    finally:
        made.close()


def count(path: Path, word: str) -> int:
    return path.read_text().count(word)


def more(path: Path, word: str, seconds: float) -> bool:
    """Whether there is another line with a word in time."""
    before = count(path, word)
    return true(lambda: count(path, word) > before, seconds)


def test_a_cut_way_is_noticed_at_both_ends_and_found_again(hosts: Hosts) -> None:
    server, site = hosts.start("server"), hosts.start("site", "100")
    assert true(lambda: count(site, "arrived") > 2, 60)
    hosts.cut(off=True)
    assert true(lambda: "lost" in site.read_text(), 40)
    assert true(lambda: "lost" in server.read_text(), 40)
    hosts.cut(off=False)
    assert more(site, "Back", 40)
    assert more(site, "arrived", 10)


def test_a_way_that_is_cut_for_a_moment_loses_nothing(hosts: Hosts) -> None:
    _, site = hosts.start("server"), hosts.start("site", "100")
    assert true(lambda: count(site, "arrived") > 2, 60)
    hosts.cut(off=True)
    time.sleep(3.0)
    hosts.cut(off=False)
    assert more(site, "arrived", 20)
    assert count(site, "Back") == 1


def test_a_server_that_has_moved_is_found_under_its_name(hosts: Hosts) -> None:
    _, site = hosts.start("server"), hosts.start("site", "100")
    assert true(lambda: count(site, "arrived") > 2, 60)
    hosts.address("10.77.0.9")
    assert more(site, "Back", 60)
    assert more(site, "arrived", 10)


@pytest.mark.parametrize(
    "shape",
    [
        ("tbf", "rate", "512kbit", "burst", "16kb", "latency", "2000ms"),
        ("netem", "rate", "512kbit", "delay", "150ms"),
    ],
    ids=["64 kB/s", "64 kB/s and 300 ms there and back"],
)
def test_a_slow_way_carries_large_messages_both_ways(hosts: Hosts, shape: tuple[str, ...]) -> None:
    if not hosts.slow(*shape):
        pytest.skip(f"this kernel has no {shape[0]}")
    server, site = hosts.start("server"), hosts.start("site", "1500000")
    assert true(lambda: count(site, "arrived") > 1, 240)
    assert "Lost" not in server.read_text()
    assert count(site, "Back") == 1
