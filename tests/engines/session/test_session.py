"""Messages between a server and sites, over TLS on this machine."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from engines.session.certificates import Authority, digest
from engines.session.ends import HOSTS, Ends, heard, say, true, until

from secure_fl.engines.session.channels import opening
from secure_fl.engines.session.dialling import SessionClient
from secure_fl.engines.session.link import Arrived, Back, Lost
from secure_fl.engines.session.serving import SessionServer
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.errors import ConfigError, FileError, SecureSumError


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    with Ends(tmp_path) as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 1 << 20, 3 * (1 << 20) + 5])
def test_messages_arrive_as_they_were(ends: Ends, size: int) -> None:
    server = ends.server()
    site = ends.site("north", "a", "b")
    assert until(site, Back) == Back("server")
    assert until(server, Back) == Back("north")
    assert (server.peers, site.peers) == (frozenset({"north"}), frozenset({"server"}))
    data = bytes(number % 251 for number in range(size))
    say(site, "server", data)
    say(server, "b", data)
    found = until(server, Arrived)
    assert (found.to, bytes(found.data)) == ("server", data)
    found = until(site, Arrived)
    assert (found.to, bytes(found.data)) == ("b", data)


def test_messages_keep_their_order_whatever_their_size(ends: Ends) -> None:
    server = ends.server()
    site = ends.site("north")
    until(site, Back)
    sizes = [5, 1 << 21, 7, 1 << 17, 0, 1 << 16] * 3
    for size in sizes:
        say(site, "server", bytes(size))
    assert [len(heard(server)) for _ in sizes] == sizes


def test_a_message_goes_to_the_site_of_its_party_alone(ends: Ends) -> None:
    server = ends.server()
    sites = {name: ends.site(name, f"{name}-1", f"{name}-2") for name in ("north", "south")}
    for site in sites.values():
        until(site, Back)
    say(server, "nobody", b"dropped")
    say(server, "south-2", b"for the south")
    say(server, "north-1", b"for the north")
    assert heard(sites["north"]) == b"for the north"
    assert heard(sites["south"]) == b"for the south"
    assert sites["north"].receive(0.2) is None


def test_a_site_reaches_nobody_but_the_server(ends: Ends) -> None:
    server = ends.server()
    north, south = ends.site("north"), ends.site("south")
    until(north, Back)
    until(south, Back)
    say(north, "south-party", b"past the server")
    say(north, "server", b"to it")
    assert heard(server) == b"to it"
    assert south.receive(0.2) is None


def test_another_authority_is_trusted_by_neither_end(ends: Ends, tmp_path: Path) -> None:
    server = ends.server()
    foreign = Authority(tmp_path / "foreign").files("north")
    site = ends.site("north", files=foreign)
    assert until(site, Lost) == Lost("server", "certificate")
    known = replace(foreign, authority=ends.files.authority)
    site = ends.site("north", files=known)
    assert until(site, Lost) == Lost("server", "certificate")
    assert server.receive(0.3) is None


def test_a_server_under_another_name_is_not_spoken_to(ends: Ends) -> None:
    ends.files = ends.authority.files("server", hosts=("elsewhere.example",))
    ends.server()
    assert until(ends.site("north"), Lost) == Lost("server", "certificate")


def test_a_site_cannot_take_the_servers_place(ends: Ends) -> None:
    """Its certificate is made out to no address, and for a client."""
    ends.files = ends.authority.files("south")
    ends.server()
    assert until(ends.site("north"), Lost) == Lost("server", "certificate")


def test_without_a_certificate_nobody_gets_as_far_as_a_stream(ends: Ends) -> None:
    import socket

    server = ends.server()
    context = ssl.create_default_context(cafile=str(ends.files.authority))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("localhost", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        wrapped.settimeout(10)
        try:
            said = wrapped.recv(100)
        except (ssl.SSLError, ConnectionError):
            said = b""
        assert said == b""
    assert server.receive(0.2) is None


def test_older_tls_is_refused(ends: Ends) -> None:
    import socket

    server, files = ends.server(), ends.seat("north")
    context = ssl.create_default_context(cafile=str(files.authority))
    context.load_cert_chain(files.certificate, files.key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("localhost", server.port)) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_a_certificate_that_is_not_on_the_list_is_refused(ends: Ends) -> None:
    server = ends.server()
    site = ends.site("north", files=ends.authority.files("north"))
    assert until(site, Lost) == Lost("server", "refused")
    assert server.receive(0.2) is None
    assert site.peers == frozenset()


def test_who_is_revoked_loses_the_stream_and_gets_no_other(ends: Ends) -> None:
    server = ends.server()
    north, south = ends.site("north"), ends.site("south")
    until(north, Back)
    until(south, Back)
    ends.seats = {key: value for key, value in ends.seats.items() if key[0] == "south"}
    assert until(server, Lost) == Lost("north", "revoked")
    assert until(north, Lost) == Lost("server", "revoked")
    assert until(north, Lost) == Lost("server", "refused")
    say(south, "server", b"still here")
    assert heard(server) == b"still here"
    assert server.peers == frozenset({"south"})


def test_a_party_that_is_added_to_a_seat_is_heard_without_another_stream(ends: Ends) -> None:
    server, files = ends.server(), ends.seat("north", "a")
    site = ends.site("north", "a", "b", files=files)
    until(site, Back)
    say(server, "b", b"too early")
    ends.seats["north", digest(files)] = ("a", "b")
    found = ends.server  # the server is the same
    assert found is not None

    def told() -> bool:
        say(server, "b", b"in time")
        return site.receive(0.1) is not None

    assert true(told)


def test_a_renewed_certificate_is_used_without_a_restart(ends: Ends) -> None:
    """Of the server and of a site; the old one ends when the list has it no more."""
    server, files = ends.server(), ends.seat("north")
    site = ends.site("north", files=files)
    until(site, Back)
    before = ssl.get_server_certificate(("localhost", server.port))
    ends.authority.files("server", hosts=HOSTS)
    assert ssl.get_server_certificate(("localhost", server.port)) != before
    old = digest(files)
    ends.seat("north")
    del ends.seats["north", old]
    assert until(server, Lost) == Lost("north", "revoked")
    assert until(site, Back) == Back("server")
    assert until(server, Back) == Back("north")


def test_a_certificate_that_is_being_replaced_leaves_the_old_one_in_use(ends: Ends) -> None:
    server = ends.server()
    ends.files.key.write_bytes(ends.seat("other").key.read_bytes())
    assert until(ends.site("north"), Back) == Back("server")
    ends.files.certificate.write_bytes(b"half")
    assert until(ends.site("south"), Back) == Back("server")
    assert server.peers == {"north", "south"}


def test_an_expired_certificate(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ends.server()
    site = ends.site("north", files=ends.authority.files("north", days=-1.0))
    assert until(site, Lost) == Lost("server", "expired")
    until(ends.site("south"), Back)
    monkeypatch.setattr("secure_fl.engines.session.tls.Peer.expired", True)
    assert until(server, Lost) == Lost("south", "expired")


def test_another_version_and_another_federation(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.server()
    assert until(ends.site("north", federation="moon"), Lost) == Lost("server", "other-federation")
    said = lambda name: (("secure-fl-version", "2"), ("secure-fl-federation", name))  # noqa: E731
    monkeypatch.setattr("secure_fl.engines.session.dialling.opening", said)
    assert until(ends.site("north"), Lost) == Lost("server", "other-version")


def test_a_server_of_another_version_is_not_taken_for_up(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secure_fl.engines.session import frames

    monkeypatch.setattr(frames, "VERSION", 3)
    server = ends.server()
    site = ends.site("north")
    assert until(site, Lost) == Lost("server", "other-version")
    assert site.peers == frozenset()
    assert until(server, Back) == Back("north")


def test_the_same_site_again_takes_the_streams_place(ends: Ends) -> None:
    server, files = ends.server(), ends.seat("north", "a")
    first = ends.site("north", "a", files=files)
    until(first, Back)
    until(server, Back)
    second = ends.site("north", "a", files=files)
    until(second, Back)
    assert server.receive(5) == Lost("north", "replaced")
    assert server.receive(5) == Back("north")
    assert until(first, Lost) == Lost("server", "replaced")
    say(server, "a", b"to the second")
    assert heard(second, 2.0) == b"to the second"


def test_a_server_that_comes_again_is_found_again(ends: Ends) -> None:
    server = ends.server()
    site = ends.site("north")
    until(site, Back)
    server.close()
    assert until(site, Lost) == Lost("server", "closed")
    say(site, "server", b"into the void")
    assert until(site, Lost) == Lost("server", "unreachable")
    again = ends.server()
    assert until(site, Back) == Back("server")
    say(site, "server", b"hello")
    assert heard(again) == b"hello"


class Cut:
    """A call whose connection is lost while gRPC has a frame of it in hand: it lets go of what
    makes them, and says nothing. Everything else of a call goes well.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._certificate = files.certificate.read_bytes()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return opening("toy")

    def add_callback(self, _: Callable[[], None]) -> bool:
        return True

    def cancel(self) -> None:
        pass


@pytest.mark.parametrize("frames", [1, 2])
def test_a_connection_that_is_lost_in_the_middle_of_a_frame_is_no_farewell(
    ends: Ends, frames: int
) -> None:
    """Whoever said farewell is not waited for: such a site would never get the last words."""
    server, files = ends.server(), ends.seat("north")
    stillness = threading.Event()
    call = server._serve(iter(stillness.wait, True), Cut(files))
    next(call)
    say(server, "north-party", b"the last words")
    for _ in range(1, frames):
        next(call)
    call.close()
    stillness.set()
    assert until(server, Lost) == Lost("north", "lost")
    assert server.peers == frozenset()


def test_what_was_handed_over_leaves_before_an_end_closes(ends: Ends) -> None:
    server = ends.server()
    north, south = ends.site("north"), ends.site("south")
    until(north, Back)
    until(south, Back)
    for _ in range(20):
        say(north, "server", bytes(1 << 15))
    north.close()
    assert [len(heard(server)) for _ in range(20)] == [1 << 15] * 20
    assert until(server, Lost) == Lost("north", "closed")
    for number in range(20):
        say(server, "south-party", bytes([number]))
    server.close()
    assert [heard(south) for _ in range(20)] == [bytes([number]) for number in range(20)]
    assert until(south, Lost) == Lost("server", "closed")


def test_a_killed_process_is_noticed_at_once(ends: Ends) -> None:
    server, files = ends.server(), ends.seat("north")
    program = (
        "import sys; from pathlib import Path\n"
        "from secure_fl.engines.session.dialling import SessionClient\n"
        "from secure_fl.engines.session.tls import TlsFiles\n"
        "files = TlsFiles(*map(Path, sys.argv[2:]))\n"
        "SessionClient(sys.argv[1], files, 'north', ['a'], federation='toy')\n"
        "sys.stdin.read()\n"
    )
    paths = [str(path) for path in (files.authority, files.certificate, files.key)]
    command = [sys.executable, "-c", program, f"localhost:{server.port}", *paths]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            until(server, Back, 60.0)
        finally:
            process.kill()
        began = time.monotonic()
        assert until(server, Lost) == Lost("north", "lost")
        assert time.monotonic() - began < 2.0


def test_what_is_wrong_with_files_is_named(ends: Ends, tmp_path: Path) -> None:
    files, other = ends.seat("north"), ends.seat("south")
    with pytest.raises(FileError, match=r"north\.key.*not the key"):
        replace(files, key=_copy(other.key, tmp_path / "north.key")).read()
    with pytest.raises(FileError, match="no certificate"):
        TlsFiles(files.authority, files.key, files.key).read()
    with pytest.raises(FileError, match="no private key"):
        replace(files, key=_copy(files.certificate, tmp_path / "none.key")).read()
    files.key.chmod(0o644)
    with pytest.raises(SecureSumError, match="others may read"):
        files.read()
    with pytest.raises(ConfigError, match="another site's"):
        SessionClient("localhost:1", other, "north", ["a"])


def test_a_port_that_is_taken_is_named(ends: Ends) -> None:
    server = ends.server()
    with pytest.raises(ConfigError, match="cannot be listened on"):
        SessionServer("127.0.0.1", server.port, ends.files, ends.admitted, most=1)


def _copy(path: Path, to: Path) -> Path:
    to.write_bytes(path.read_bytes())
    to.chmod(0o600)
    return to
