"""A federation over `Driver`s, each in a thread of its own, and links that are queues."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from secure_fl.engines.session.driver import Driver
from secure_fl.engines.session.link import Arrived, Back, Event, Lost, Watch
from secure_fl.federation.parties.party import Message, Party

SERVER = "server"


@dataclass
class Net:
    """Who is where: parties by name of a machine."""

    at: dict[str, str]
    queues: dict[str, queue.Queue[Event]] = field(default_factory=dict)
    baton: threading.Lock = field(default_factory=threading.Lock)
    """Who works holds it: parties of one process share what a process has one of, as its coins."""

    def __post_init__(self) -> None:
        self.queues = {machine: queue.Queue() for machine in {*self.at.values()}}


class Wire:
    """One machine's link."""

    def __init__(self, net: Net, machine: str) -> None:
        self._net, self._machine = net, machine
        others = sorted(net.queues.keys() - {machine}) if machine == SERVER else [SERVER]
        self.peers = frozenset(others)
        for other in others:
            net.queues[machine].put(Back(other))

    def send(self, sender: str, message: Message) -> None:
        to = self._net.at[message.to]
        self._net.queues[to].put(Arrived(message.to, bytes(message.data)))

    def receive(self, seconds: float) -> Event | None:
        self._net.baton.release()
        try:
            return self._net.queues[self._machine].get(timeout=max(seconds, 0.001))
        except queue.Empty:
            return None
        finally:
            self._net.baton.acquire()

    def close(self) -> None:
        for other in self.peers:
            self._net.queues[other].put(Lost(self._machine, "closed"))


def run(
    machines: Mapping[str, Sequence[Party]],
    watches: Mapping[str, Watch],
    *,
    before: Callable[[Net], None] = lambda _: None,
    seconds: float = 240.0,
) -> None:
    """Until the server's machine is done, and the others are, or had time to be."""
    net = Net({party.name: machine for machine, all_ in machines.items() for party in all_})
    stop = threading.Event()
    found: list[BaseException] = []
    links = {machine: Wire(net, machine) for machine in machines}
    before(net)

    def drive(machine: str) -> None:
        link = links[machine]
        with net.baton:
            try:
                Driver(machines[machine], link, watch=watches.get(machine)).run(until=stop.is_set)
            except BaseException as error:
                found.append(error)
                stop.set()
            link.close()

    threads = {machine: threading.Thread(target=drive, args=[machine]) for machine in machines}
    for thread in threads.values():
        thread.start()
    threads[SERVER].join(seconds)
    if threads[SERVER].is_alive():
        found.append(TimeoutError(SERVER))
    for machine in machines.keys() - {SERVER}:
        threads[machine].join(5.0)  # one with a client that takes no part never ends by itself
    stop.set()
    for thread in threads.values():
        thread.join()
    if found:
        raise found[0]
