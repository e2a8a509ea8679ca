"""A run's clients in worker processes: TenSEAL and much of torch hold Python's global lock, so only
processes work side by side.

Each worker is started afresh and is sent what its clients are made of, as JSON and safetensors;
nothing is pickled, nothing is forked, and a script needs no `if __name__ == "__main__"`. A caller's
own encoder or augmentation must be a function of an importable module, which workers import by
name; anything else is refused. A forked worker would take any object along, and every thread, lock
and key of the run as well: torch's threads do not survive a fork, and noise must not be drawn
twice. Each worker computes with one thread, and takes one message at a time.

Guarantee: models, records and private results are those of one process, bit for bit where no noise
is drawn. What clients release is admitted by the run's gate and kept by its release box, in this
process, before it is sent. No worker outlives the run, whatever ends that.
Assumes: every process computes alike; nobody reads the memory of another.
Not covered: a worker that dies takes the round with it: a typed error, and the run can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from secure_fl.config import FederationConfig
from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.data.partitions import ClientData
from secure_fl.engines.embedded import Places
from secure_fl.engines.parties import LocalParties
from secure_fl.engines.pipes import Remote
from secure_fl.engines.queue import Host
from secure_fl.engines.recorder import client_name
from secure_fl.engines.sending import (
    client_packet,
    decode,
    encode,
    error_of,
    name_of,
    of_bytes,
    seen_of,
    summed_of,
)
from secure_fl.engines.worker import DESK
from secure_fl.errors import ConfigError, TrainingError
from secure_fl.federation.observe import Seen
from secure_fl.federation.parties.party import Message
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import State
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.steps.step import Step
from secure_fl.privacy.ledger import Release

_MAKE = "secure_fl.engines.worker:make"
Packet = tuple[dict[str, Any], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Own:
    """A caller's own functions, by name: `encoder` and `augment`, None where it has none. Raises
    ConfigError: a function that workers cannot import.
    """

    encoder: str | None = None
    augment: str | None = None

    @classmethod
    def of(cls, encoder: Any, augment: Any) -> Own:
        """As names."""
        return cls(name_of(encoder, "encoder"), name_of(augment, "augment"))


class Worker(Remote):
    """A process whose desk is asked between the messages of its clients."""

    def __init__(self, numbers: Sequence[int], asked: Callable[[memoryview], bytes]) -> None:
        head = {"numbers": list(numbers), "names": [client_name(one) for one in numbers]}
        self.share = numbers
        self._kept: list[tuple[str, Message]] = []
        super().__init__(_MAKE, encode(head), asked)

    def collect(self) -> list[tuple[str, Message]]:
        """As a host; first what clients sent while the desk was asked."""
        kept, self._kept = self._kept, []
        return kept or super().collect()

    def ask(self, do: str, packet: Packet) -> None:
        """Ask its desk; `said` waits for the answer."""
        while self.busy:
            self._kept += super().collect()
        head, tensors = packet
        self.give(DESK, encode(head | {"do": do}, tensors))

    def said(self) -> dict[str, Any]:
        """What the desk answers. Raises SecureFLError: what was asked could not be done;
        TrainingError: the process has ended.
        """
        while self.busy:
            self._kept += super().collect()
        said = [message for sender, message in self._kept if sender == DESK]
        self._kept = [each for each in self._kept if each[0] != DESK]
        if not said:
            raise self.died()
        head = decode(said[0].data)[0]
        if "error" in head:
            raise error_of(head["error"])
        return head

    def died(self) -> TrainingError:
        """That the process has ended."""
        problem = "a worker process has ended"
        remedy = "resume the run; where the system ended it, free memory or set fewer workers"
        return TrainingError(problem, "runtime.workers", f"exit status {self.status}", remedy)


@dataclass
class Workers:
    """An engine, as `EmbeddedEngine`, whose clients live in worker processes. Raises ConfigError:
    workers on a CUDA device; TrainingError: a worker did not start.

    Args:
        clients: everybody's examples, dealt out by size.
        program: of the federation.
        workers: processes, at most.
        results: where private results are kept.
        earlier: what an earlier run released, where this one goes on from its encoder.
        own: the caller's functions.
    """

    clients: Sequence[ClientData]
    program: StepProgram
    workers: int
    results: ReleaseBox
    earlier: Sequence[Release] = ()
    own: Own = field(default_factory=Own)

    def __post_init__(self) -> None:
        factory = self.program.factory
        if factory.compute.device.type != "cpu":
            problem = "worker processes share the processor, not a CUDA device"
            remedy = 'set runtime.device = "cpu", or runtime.workers = 1'
            raise ConfigError(problem, "runtime.workers", self.workers, remedy)
        self._watcher: LocalParties | None = None
        self._scores: dict[int, Seen] = {}
        self._workers: list[Worker] = []
        try:
            for share in shares(self.clients, self.workers):
                self._workers.append(Worker(share, self._asked))
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        everybody = {
            "facts": self.program.facts.document(),
            "encoder": self.own.encoder,
            "augment": self.own.augment,
            "earlier": [release.to_dict() for release in self.earlier],
        }
        for worker in self._workers:
            _ = worker.names
        self._all("begin", everybody)
        for worker in self._workers:
            for number in worker.share:
                worker.ask("client", client_packet(self.clients[number]))
                worker.said()

    # What a run asks of an engine

    @property
    def crew(self) -> Workers:
        """Itself: its clients are parties elsewhere."""
        return self

    @property
    def size(self) -> int:
        """Worker processes."""
        return len(self._workers)

    @property
    def lost(self) -> TrainingError | None:
        """Why the run cannot go on: a worker has ended."""
        gone = [worker for worker in self._workers if not worker.alive]
        return None if not gone else gone[0].died()

    def releases(self, state: State, places: Places) -> list[Release]:
        """What the clients would release by answering, in the order of their places."""
        config = self.program.facts.config
        if config.privacy.unit == "none" and not config.noises_sketches:
            return []
        said = self._all("releases", {"places": [list(place) for place in places]}, state)
        return _ordered(said, places)

    def scored(self, step: Step, state: State) -> Iterator[tuple[int, Seen]]:
        """What the experimenter reads off every client, in the order of their numbers."""
        self._scores = {}
        self._all("scored", {}, state)
        yield from sorted(self._scores.items())

    def remind(self, choices: Mapping[str, int]) -> None:
        """Remind clients of the pools that they used, where their sketches are gone."""
        self._all("remind", {"choices": dict(choices)})

    def recalled(self, state: State) -> list[Release]:
        """What `recall` would release anew."""
        said = self._all("recalled", {}, state)
        return _ordered(said, [(number, number) for number in range(len(self.clients))])

    def recall(self, state: State) -> None:
        """Every client takes up the sketch again that it released before this process began."""
        self._all("recall", {}, state)

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.close()

    # What parties ask of a crew

    def members(self) -> list[Member]:
        said = self._all("members", {})
        found = [Member.from_document(each) for one in said for each in one["members"]]
        return sorted(found, key=lambda member: member.name)

    def hosts(
        self, roster: Roster, coordinator: Identity, head: bytes, watcher: LocalParties
    ) -> list[Host]:
        self._watcher = watcher
        card, signed = coordinator.member.document(), roster.sign(coordinator)
        facts = {"coordinator": card, "roster": signed.hex(), "head": head.hex()}
        self._all("join", facts, watcher.watched.first)
        return list(self._workers)

    # Questions and answers

    def _all(
        self, do: str, head: Mapping[str, Any], state: State | None = None
    ) -> list[dict[str, Any]]:
        """Ask all workers the same, and wait for all of them."""
        tensors = {} if state is None else {"state": of_bytes(state.encode())}
        for worker in self._workers:
            worker.ask(do, (dict(head), tensors))
        return [worker.said() for worker in self._workers]

    def _asked(self, data: memoryview) -> bytes:
        """What a worker tells or asks while it works."""
        head, tensors = decode(data)
        about, watcher = head["about"], self._watcher
        if about == "box":
            return self._kept(head, tensors)
        if about == "score":
            self._scores[head["client"]] = seen_of(head["seen"])
        elif watcher is not None and about == "answer":
            watcher.answered(head["client"], seen_of(head["seen"]), head["seconds"])
        elif watcher is not None and about == "error":
            watcher.failed(error_of(head["error"]))
        elif watcher is not None and about == "opened":
            step, number = head["place"]
            watcher.opened_elsewhere((step, number), lambda: summed_of(head, tensors))
        return encode({})

    def _kept(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
        """What the release box says to a worker."""
        box, key, reused = self.results, head["key"], head.get("reused", False)
        if head["do"] == "keep":
            return encode({}, box.once(key, lambda: dict(tensors), reused=reused))
        found = box.find(key)
        if found is None:
            return encode({"found": False})
        if head["do"] == "again":
            known = found
            found = box.once(key, lambda: known, reused=reused)
        return encode({"found": True}, found)


def apart(config: FederationConfig) -> tuple[int, FederationConfig]:
    """The number of workers, and the configuration with one. It changes nothing that a run makes,
    so a run's folder leaves it out, and a run is resumed with any number.
    """
    runtime = config.runtime.model_copy(update={"workers": 1})
    return config.runtime.workers, config.model_copy(update={"runtime": runtime})


def shares(clients: Sequence[ClientData], workers: int) -> list[list[int]]:
    """Numbers of each worker's clients: the largest first, each to who has least to train on."""
    found: list[list[int]] = [[] for _ in range(min(workers, len(clients)))]
    loads = [0] * len(found)
    for number in sorted(range(len(clients)), key=lambda one: (-len(clients[one].train), one)):
        least = loads.index(min(loads))
        found[least].append(number)
        loads[least] += max(1, len(clients[number].train))
    return [sorted(share) for share in found]


def _ordered(said: Sequence[Mapping[str, Any]], places: Places) -> list[Release]:
    """Releases of all workers, in the order of the places of those whom they touch."""
    releases = [Release.from_dict(each) for one in said for each in one["releases"]]
    order = {client: position for position, client in places}
    return sorted(releases, key=lambda release: order[release.subjects[0]])
