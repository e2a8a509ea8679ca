"""A site's end of a session: it dials the server, and dials again whenever the way is lost.

The address is looked up and the certificate's files are read anew for each connection. A proxy is
used where the environment names one (`https_proxy`, `grpc_proxy`; `no_proxy` lists exceptions), and
never else; it sees TLS alone.

Guarantee: nothing is said to anybody but the machine whose certificate the federation's authority
made out to the name that was dialled. Nobody dials this end: it needs no open port.
Assumes: the authority's key is safe; no site's certificate is made out to the server's name.
Not covered: who speaks, which is signed inside.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc

from secure_fl.crypto.refusals import RefusedError
from secure_fl.engines.session.boxes import EndedError, Inbox, Outbox, StreamRoom, arrival, slots
from secure_fl.engines.session.channels import METHOD, Word, channel_to, opening, why_ended
from secure_fl.engines.session.frames import VERSION, carry, read_greeting
from secure_fl.engines.session.link import Back, Event, Lost
from secure_fl.engines.session.tls import Peer, TlsFiles
from secure_fl.errors import ConfigError, SecureFLError
from secure_fl.federation.parties.party import Message

_SOON, _LATEST = 0.1, 5.0
"""Seconds until the server is dialled again: at first, and at most."""
_PATIENCE = 15.0
"""Seconds for a connection and the server's greeting."""
_LASTING = 2.0
_QUICK = 2.0
MOST = 1 << 32
"""Bytes of the largest message of the server, where nothing is known of the plan."""


class SessionClient:
    """Dials the server for as long as it lives; a `Link` whose one peer is the server's name.

    Args:
        address: host and port, as in `federation.example.org:9443`.
        tls: of this end.
        site: name of this site, to which its certificate is made out.
        parties: names of those here; a message for anybody else is dropped.
        server: name of the party there.
        federation: its name, which must be the server's too.
        most: bytes of the largest message that the server may send.

    Raises:
        ConfigError: the certificate is made out to another name.
        FileError, SecureSumError: as of `TlsFiles.read`.
    """

    def __init__(
        self,
        address: str,
        tls: TlsFiles,
        site: str,
        parties: Sequence[str],
        *,
        server: str = "server",
        federation: str = "",
        most: int = MOST,
    ) -> None:
        self._address, self._tls, self._server = address, tls, server
        self._federation, self._most = federation, most
        found = Peer.of(tls.read().certificate).name
        if found != site:
            remedy = "give the site the certificate that was made for it"
            raise ConfigError("is another site's certificate", "site", found, remedy)
        self._inbox = Inbox()
        self._deliver = arrival(self._inbox, frozenset(parties))
        self._place, self._slots = threading.Semaphore(1), slots()
        self._line: _Line | None = None
        self._closing = threading.Event()
        self._dialler = threading.Thread(target=self._dial_for_ever, daemon=True)
        self._dialler.start()

    @property
    def peers(self) -> frozenset[str]:
        """The server, where it can be reached."""
        line = self._line
        return frozenset({self._server}) if line is not None and line.up else frozenset()

    def send(self, sender: str, message: Message) -> None:
        """Hand over, where there is a stream."""
        line = self._line
        if line is not None and line.up and not line.outbox.put(message):
            line.end(Word.SLOW)

    def receive(self, seconds: float) -> Event | None:
        """The next event."""
        return self._inbox.receive(seconds)

    def close(self) -> None:
        """Let what was handed over arrive for two seconds at most, then end."""
        self._closing.set()
        line = self._line
        if line is not None and line.up:
            line.outbox.shut(drop=False)
            self._dialler.join(_QUICK)
        line = self._line
        if line is not None:
            line.end(Word.CLOSED)
        self._dialler.join(_QUICK)

    def _dial_for_ever(self) -> None:
        wait, said = _SOON, ""
        while not self._closing.is_set():
            began = time.monotonic()
            up, why = self._dial()
            if up or why != said:
                self._inbox.put(Lost(self._server, str(why)))
            said = why
            # who breaks off at once with a reason will do so again
            lasted = up and (why == Word.LOST or time.monotonic() - began > _LASTING)
            wait = _SOON if lasted else min(2 * wait, _LATEST)
            wait = _LATEST if why == Word.REPLACED else wait
            # not from the generator of this process: who trains privately looks whether that moves
            self._closing.wait(wait * random.SystemRandom().uniform(0.5, 1.0))

    def _dial(self) -> tuple[bool, Word]:
        """One connection, to its end; whether it was up, and why it is not."""
        try:
            pem = self._tls.read()
        except SecureFLError:
            return False, Word.CERTIFICATE
        if Peer.of(pem.certificate).expired:
            return False, Word.EXPIRED
        with channel_to(self._address, pem) as channel:
            outbox = Outbox()
            frames, said = outbox.frames(), opening(self._federation)
            call = channel.stream_stream(METHOD)(frames, metadata=said)
            line = self._line = _Line(outbox, call)
            if self._closing.is_set():
                line.end(Word.CLOSED)
            line.end(self._talk(line))
            self._line = None
            return line.up, line.why

    def _talk(self, line: _Line) -> Word:
        """Take what the server says, until it ends; the word for that."""
        timer = threading.Timer(_PATIENCE, line.end, (Word.UNREACHABLE,))
        timer.daemon = True
        timer.start()
        try:
            version, federation = read_greeting(next(line.call))
            timer.cancel()
            if version != VERSION or federation != self._federation:
                return Word.VERSION if version != VERSION else Word.FEDERATION
            line.up = True
            self._inbox.put(Back(self._server))
            room = StreamRoom(self._place, self._slots, lambda: not line.call.is_active())
            said = carry(line.call, self._most, room, self._deliver)
            return Word.CLOSED if said else Word.LOST
        except RefusedError:
            return Word.MALFORMED
        except (grpc.RpcError, EndedError):
            return why_ended(line.call, up=line.up)
        except StopIteration:
            return Word.LOST
        finally:
            timer.cancel()


class _Line:
    """One call to the server.

    Attributes:
        up: whether the server has answered it.
        why: the word for its end, once it has ended.
    """

    def __init__(self, outbox: Outbox, call: Any) -> None:
        self.outbox, self.call = outbox, call
        self.up, self.why = False, Word.LOST
        self._over = threading.Lock()

    def end(self, why: Word) -> None:
        """End it, for the first reason that is given."""
        if self._over.acquire(blocking=False):
            self.why = why
            self.outbox.shut()
            self.call.cancel()
