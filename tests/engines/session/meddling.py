"""Messages that do not belong there, from a site that is itself let in: put between its link and
its parties. Inside TLS nobody else can say anything.
"""

from __future__ import annotations

from engines.session.lives import Facts, phase_of
from federation.parties.kills import Federation

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.engines.session.link import Arrived, Event, Link
from secure_fl.federation.parties.party import Message
from secure_fl.federation.wire import Wire, route

VICTIM = "client-0003"


class Meddled:
    """A link on which what a party says is not all that is heard."""

    def __init__(self, link: Link, made: Federation) -> None:
        self._link, self._made = link, made

    @property
    def peers(self) -> frozenset[str]:
        return self._link.peers

    def send(self, sender: str, message: Message) -> None:
        self._link.send(sender, message)

    def receive(self, seconds: float) -> Event | None:
        return self._link.receive(seconds)

    def close(self) -> None:
        self._link.close()


class Strange(Meddled):
    """Beside everything that the victim says: the same again, what it said a round ago, and what is
    changed, cut off, forged, a stranger's, or nothing at all.
    """

    def __init__(self, link: Link, made: Federation) -> None:
        super().__init__(link, made)
        self._early = list[bytes]()
        names = (VICTIM, "client-0099")
        self._wires = [Wire(Identity.generate(name), made.roster) for name in names]
        for wire in self._wires:
            wire.plan = made.plan.digest.hex()

    def send(self, sender: str, message: Message) -> None:
        said = [message.data]
        if sender == VICTIM:
            data = bytes(message.data)
            said += [data, data[:-1] + bytes([data[-1] ^ 1]), data[: len(data) // 2], b"", b"{}"]
            said += [wire.sign(Phase.WANT, {"place": [0, 0]}) for wire in self._wires]
            header = route(data)
            if header.phase < Phase.HELLO and header.round == 0:
                self._early.append(data)
            elif header.phase < Phase.HELLO:
                said += self._early
        for one in said:
            self._link.send(sender, Message(message.to, one))


class Late(Meddled):
    """What the victim gives to the first round comes when the server has gone on without it."""

    def __init__(self, link: Link, made: Federation) -> None:
        super().__init__(link, made)
        self._held = list[tuple[str, Message]]()

    def send(self, sender: str, message: Message) -> None:
        header = route(message.data)
        if (sender, header.phase, header.round) == (VICTIM, Phase.UPLOAD, 0):
            self._held.append((sender, message))
        else:
            self._link.send(sender, message)

    def receive(self, seconds: float) -> Event | None:
        event = self._link.receive(seconds)
        if self._held and isinstance(event, Arrived) and phase_of(event.data) == "AGREE":
            for held in self._held:
                self._link.send(*held)
            self._held = []
        return event


def strange(link: Link, facts: Facts, made: Federation) -> Link:
    return Strange(link, made)


def late(link: Link, facts: Facts, made: Federation) -> Link:
    return Late(link, made)
