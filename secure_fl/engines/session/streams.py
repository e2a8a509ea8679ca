"""What the server has of a site: one stream, and what all its streams have in common."""

from __future__ import annotations

import threading
import time
from typing import Any

from secure_fl.engines.session.boxes import Outbox, StreamRoom, slots
from secure_fl.engines.session.channels import Word
from secure_fl.engines.session.tls import Peer

_WORD = 1.0
COMINGS, _AGAIN = 64, 1.0
"""How often a site may come in a row; and seconds after which it may come once more."""
_PROBES, _NEXT = 4, 30.0
"""How often it may measure its way in a row; and seconds until once more."""


class Allowance:
    """How often a site may do what costs the server files, lines or bytes, and those of its
    operators patience.

    Args:
        most: times in a row.
        again: seconds after which there is one more.
    """

    def __init__(self, most: int, again: float) -> None:
        self._most, self._again = most, again
        self._left, self._at, self._lock = float(most), time.monotonic(), threading.Lock()

    def use(self) -> bool:
        """Whether it may, once."""
        with self._lock:
            now = time.monotonic()
            self._left = min(self._most, self._left + (now - self._at) / self._again)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Guest:
    """What the streams of one site have in common.

    Attributes:
        slots: for its small messages.
        comings, probes: how often it may.
    """

    def __init__(self) -> None:
        self.slots = slots()
        self.comings, self.probes = Allowance(COMINGS, _AGAIN), Allowance(_PROBES, _NEXT)


class Stream:
    """A stream that was admitted.

    Args:
        peer: whose certificate it is.
        names: of the parties that may speak on it.
        context: gRPC's, of the call.

    Attributes:
        outbox: what is to be said on it.
        gone: set when nothing of it is left.
        why: the word for its end; empty before that.
    """

    def __init__(self, peer: Peer, names: frozenset[str], context: Any) -> None:
        self.peer, self.names, self._context = peer, names, context
        self.outbox, self.gone = Outbox(), threading.Event()
        self.room: StreamRoom | None = None
        self.why = ""
        self._lock = threading.Lock()

    @property
    def site(self) -> str:
        """Its name, from the certificate."""
        return self.peer.name

    @property
    def waited(self) -> float:
        """Seconds for which a part of a large message has not come."""
        return 0.0 if self.room is None else self.room.waited

    def end(self, why: Word) -> bool:
        """End it; False where it had ended before. Its reader is told the word, or is cut off where
        it does not listen for a second.
        """
        with self._lock:
            if self.why:
                return False
            self.why = why
        self.outbox.shut()
        timer = threading.Timer(_WORD, self._cut_off)
        timer.daemon = True
        timer.start()
        return True

    def _cut_off(self) -> None:
        if not self.gone.is_set():
            self._context.cancel()
