"""The server's end of a session: sites dial it, one stream each.

Guarantee: only who has a certificate of the federation's authority that `admitted` knows gets a
stream, and nothing is kept for anybody else; a certificate that is revoked loses its stream within
seconds. A message goes to the site alone at which its party may speak. Whatever a site sends, it
ends its own stream at most. However many sites there are, three large messages are in memory at a
time; the others wait at their senders, each until those before it have come at `boxes.PACE` or were
cut off. Of small messages a few a site are in memory, however often it comes; one that comes and
goes all the time has to wait. One site at a time measures its way (`probing`), and not all the
time.
Assumes: the authority's key is safe. Names and certificates are public. The key of this end lies in
a file, and in memory.
Not covered: who speaks, which is signed inside; somebody who fills the port with connections.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc

from secure_fl.crypto.refusals import RefusedError
from secure_fl.engines.session.boxes import EndedError, Inbox, StreamRoom, arrival
from secure_fl.engines.session.channels import METHOD, PROBE, Word, opening, options
from secure_fl.engines.session.frames import carry, greeting
from secure_fl.engines.session.link import Back, Event, Lost
from secure_fl.engines.session.probing import SECONDS, answers
from secure_fl.engines.session.streams import Guest, Stream
from secure_fl.engines.session.tls import Peer, Pem, TlsFiles
from secure_fl.errors import ConfigError, SecureFLError
from secure_fl.federation.parties.party import Message

Admitted = Callable[[str, str], Sequence[str] | None]
"""Names of the parties that may speak on the stream of a site, by the common name of its
certificate and the SHA-256 of that in hex; None where it is refused.
"""
_STREAMS = 256
_GLANCE, _AGAIN = 0.25, 2.0
"""Seconds after which streams are looked at, and `admitted` is asked again."""
_QUICK = 2.0


class SessionServer:
    """Listens for sites; a `Link` whose peers are their names. It is to be closed: its threads
    outlive its user else.

    Args:
        host: address to listen on.
        port: 0 for any that is free; `port` says which.
        tls: of this end.
        admitted: who may speak; asked at every connection, and every two seconds again, from other
            threads.
        server: name of the party here, to which all goes that arrives.
        most: bytes of the largest message that a site may send.
        federation: its name, which sites compare with theirs.
        stall: seconds for which a message that was begun is waited for while no part of it comes,
            and by which all of it may be behind `boxes.PACE`.
        places: large messages in memory at a time; with one, processors wait for each other.

    Raises:
        ConfigError: the address cannot be listened on.
        FileError, SecureSumError: as of `TlsFiles.read`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: TlsFiles,
        admitted: Admitted,
        *,
        server: str = "server",
        most: int,
        federation: str = "",
        stall: float = 60.0,
        places: int = 3,
    ) -> None:
        self._tls, self._admitted, self._most, self._stall = tls, admitted, most, stall
        self._federation = federation
        self._inbox = Inbox()
        self._deliver = arrival(self._inbox, {server})
        self._place, self._probing = threading.Semaphore(places), threading.Lock()
        self._lock = threading.Lock()
        self._streams, self._guests = dict[str, Stream](), dict[str, Guest]()
        self._closing = threading.Event()
        self._used = tls.read()
        self._grpc = grpc.server(
            ThreadPoolExecutor(_STREAMS, "session"),
            handlers=[_handler({METHOD: self._serve, PROBE: self._probe})],
            options=options(server=True),
            maximum_concurrent_rpcs=_STREAMS,
        )
        self.port = self._listen(host, port)
        self._grpc.start()
        self._warden = threading.Thread(target=self._watch, daemon=True)
        self._warden.start()

    @property
    def peers(self) -> frozenset[str]:
        """Sites that have a stream."""
        with self._lock:
            return frozenset(self._streams)

    def send(self, sender: str, message: Message) -> None:
        """Hand over, to the site at which the party speaks."""
        with self._lock:
            found = [one for one in self._streams.values() if message.to in one.names]
        if found and not found[-1].outbox.put(message):
            self._end(found[-1], Word.SLOW)

    def receive(self, seconds: float) -> Event | None:
        """The next event."""
        return self._inbox.receive(seconds)

    def close(self) -> None:
        """Let what was handed over leave for two seconds at most, then end."""
        self._closing.set()
        until = time.monotonic() + _QUICK
        with self._lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.outbox.shut(drop=False)
        for stream in streams:
            stream.gone.wait(max(0.0, until - time.monotonic()))
            stream.end(Word.CLOSED)
        self._grpc.stop(_GLANCE).wait()
        self._warden.join()

    def _listen(self, host: str, port: int) -> int:
        credentials = grpc.dynamic_ssl_server_credentials(
            _certificates(self._used), self._renewed, True
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            return int(self._grpc.add_secure_port(address, credentials))
        except RuntimeError:
            remedy = "choose an address of this machine and a port that nobody uses"
            raise ConfigError("cannot be listened on", "server.port", address, remedy) from None

    def _renewed(self) -> Any:
        """New files, if there are any; while they are being replaced the old ones serve on."""
        try:
            found = self._tls.read()
        except SecureFLError:
            return None
        if found == self._used:
            return None
        self._used = found
        return _certificates(found)

    def _serve(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """One stream, from its beginning to its end."""
        stream = self._stream(context)
        self._join(stream)
        if not context.add_callback(lambda: self._gone(stream)):
            return self._gone(stream)
        threading.Thread(target=self._read, args=(stream, requests), daemon=True).start()
        # gRPC lets go of this generator where the way was cut while a frame was on it
        end = Word.LOST
        try:
            yield greeting(self._federation)
            yield from stream.outbox.frames()
            if not stream.why:
                # who hears the farewell hangs up; were this end to do so, words might be lost
                stream.gone.wait(_QUICK)
            end = Word.CLOSED
        finally:
            self._end(stream, end)
        if stream.why != Word.CLOSED:
            context.abort(grpc.StatusCode.ABORTED, stream.why)

    def _probe(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """A site measures its way: nothing of it reaches anybody else."""
        peer, _ = self._known(context)
        if not self._probing.acquire(blocking=False):
            context.abort(grpc.StatusCode.ABORTED, Word.BUSY)
        if not self._guest(peer.name).probes.use():  # who found it busy has not measured
            self._probing.release()
            context.abort(grpc.StatusCode.ABORTED, Word.REFUSED)
        ends = threading.Timer(SECONDS, context.cancel)
        ends.daemon = True
        ends.start()
        try:
            with suppress(Exception):  # gRPC raises a bare one where a call was cut
                yield from answers(requests)
        finally:
            ends.cancel()
            self._probing.release()

    def _stream(self, context: Any) -> Stream:
        """A stream for who may have one."""
        peer, names = self._known(context)
        if not self._guest(peer.name).comings.use():
            context.abort(grpc.StatusCode.ABORTED, Word.REFUSED)
        return Stream(peer, frozenset(names), context)

    def _known(self, context: Any) -> tuple[Peer, Sequence[str]]:
        """Who calls, and its parties; all others are refused, before anything is kept."""
        found = context.auth_context()
        try:
            peer = Peer.of(found.get("x509_pem_cert", [b""])[0])
            names = self._names(peer)
        except ValueError:
            names = None
        if names is None or self._closing.is_set():
            context.abort(grpc.StatusCode.ABORTED, Word.REFUSED)
        said, here = dict(context.invocation_metadata()), dict(opening(self._federation))
        for key, word in zip(here, (Word.VERSION, Word.FEDERATION), strict=True):
            if said.get(key) != here[key]:
                context.abort(grpc.StatusCode.ABORTED, word)
        return peer, names or ()

    def _guest(self, site: str) -> Guest:
        """Of a site that is admitted: there are no more of them than seats."""
        with self._lock:
            return self._guests.setdefault(site, Guest())

    def _names(self, peer: Peer) -> Sequence[str] | None:
        """Of the parties that may speak; None where nobody can say."""
        if not peer.name or peer.expired:
            return None
        try:
            return self._admitted(peer.name, peer.digest)
        except SecureFLError:
            return None

    def _join(self, stream: Stream) -> None:
        """It takes the place of the site's stream before it, if there is one."""
        with self._lock:  # in one step: of two that come at once none is forgotten
            before, self._streams[stream.site] = self._streams.get(stream.site), stream
            if before is not None:
                self._inbox.put(Lost(stream.site, str(Word.REPLACED)))
            self._inbox.put(Back(stream.site))
        if before is not None:
            before.end(Word.REPLACED)

    def _end(self, stream: Stream, why: Word) -> None:
        """The stream is over, for the first reason that is given."""
        if not stream.end(why):
            return
        with self._lock:
            if self._streams.get(stream.site) is stream:
                del self._streams[stream.site]
                self._inbox.put(Lost(stream.site, str(stream.why)))

    def _gone(self, stream: Stream) -> None:
        """Nothing is left of its connection."""
        stream.gone.set()
        self._end(stream, Word.LOST)

    def _read(self, stream: Stream, requests: Iterator[bytes]) -> None:
        """What a site sends, until it ends."""
        guest = self._guest(stream.site)
        room = stream.room = StreamRoom(self._place, guest.slots, lambda: stream.why != "")
        try:
            # gRPC ends the requests of a broken connection as it ends others
            said = carry(requests, self._most, room, self._deliver)
            self._end(stream, Word.CLOSED if said else Word.LOST)
        except RefusedError:
            self._end(stream, Word.MALFORMED)
        except EndedError:
            return
        except Exception:  # gRPC raises a bare one where a stream was cut
            self._end(stream, Word.LOST)

    def _watch(self) -> None:
        """Now and then: who may no longer speak, who does not go on, who does not hear."""
        again = 0.0
        while not self._closing.wait(_GLANCE):
            with self._lock:
                streams = list(self._streams.values())
            ask = time.monotonic() >= again
            again = time.monotonic() + _AGAIN if ask else again
            for stream in streams:
                if stream.waited > self._stall:
                    self._end(stream, Word.STALLED)
                elif ask:
                    self._check(stream)

    def _check(self, stream: Stream) -> None:
        names = self._names(stream.peer)
        if names is None:
            self._end(stream, Word.EXPIRED if stream.peer.expired else Word.REVOKED)
        else:
            stream.names = frozenset(names)


def _certificates(pem: Pem) -> Any:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.authority)


def _handler(serve: Mapping[str, Callable[[Iterator[bytes], Any], Iterator[bytes]]]) -> Any:
    """Of the methods that there are, all of one service."""
    service = METHOD[1:].split("/")[0]
    methods = {
        path.split("/")[-1]: grpc.stream_stream_rpc_method_handler(each)
        for path, each in serve.items()
    }
    return grpc.method_handlers_generic_handler(service, methods)
