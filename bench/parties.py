"""What a federation's protocol costs beside training and cryptography, as clients grow in number.

    python -m bench.parties overhead [--clients 16] [--parameters 1000000] [--rounds 6]
    python -m bench.parties clients [--counts 16 64 256] [--parameters 100000] [--rounds 4]
    python -m bench.parties workers [--clients 8] [--rounds 5] [--examples 2000]

- `overhead`: rounds of pre-training under `bfv+masked`, all parties in one process; processor
  time of a round, and its shares: training (clients' answers, timed), cryptography (masks, shares,
  encryption, signatures, packing) and the rest, both from a profile of as many rounds again, less
  what the profiler takes for each call.
- `clients`: for each number of clients, in a process of its own: processor time of a round, the
  most that is reachable from the server (its program, which a simulation shares, left out) after
  any 16th of its messages, and the process' peak resident memory.
- `workers`: wall time of a round that is mostly training, with one process and with two workers, in
  turn; the machine must be quiet.

The first round is not counted. Rows go to `results/parties.csv`; medians over rounds.

Claims: the rest at most 5 % of a round; 256 clients at most 1.5 times the server's memory of 16,
and 16 times its time; two workers at least 1.7 times as fast as one process.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from bench.harness import append_row, provenance
from bench.where_time_goes import Spent, spent
from secure_fl import Federation
from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.engines.parties import LocalParties
from secure_fl.engines.recorder import Recorder
from secure_fl.engines.workers import Own, Workers
from secure_fl.federation.client import Client
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.models.state import vector_size

CSV = "parties.csv"
_SIDE, _CLASSES, _EVERY = 8, 3, 16
_SKIPPED = (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType, types.CodeType)


def linear(width: int) -> Callable[[int], nn.Module]:
    """seed -> an encoder of `2 * 64 * width` weights."""

    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inner = nn.Linear(_SIDE**2, width, bias=False)
            return nn.Sequential(nn.Flatten(), inner, nn.ReLU(), nn.Linear(width, 64, bias=False))

    return make


def federation(
    clients: int,
    rounds: int,
    examples: int,
    encoder: Callable[[int], nn.Module] | None = None,
    protection: str = "bfv+masked",
) -> Federation:
    """Pre-training only, on noise; the configuration's convnet without an `encoder`."""
    count = clients * examples
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 1, _SIDE, _SIDE, generator=generator)
    data = Dataset.from_arrays(x, torch.arange(count) % _CLASSES, classes=_CLASSES)
    tables: dict[str, dict[str, Any]] = {
        "partition": {"kind": "iid", "clients": clients},
        "pretrain": {"rounds": rounds, "local_epochs": 1, "batch_size": 16},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
        "objective": {"assign": "modulo"},
        "runtime": {"device": "cpu"},
        "security": {"protection": protection},
    }
    return Federation(FederationConfig(**tables), data=data, encoder=encoder)


class Rounds:
    """Rounds of a federation, one after the other.

    Args:
        made: of which.
        workers: processes of its clients.
    """

    def __init__(self, made: Federation, workers: int = 1) -> None:
        program = StepProgram(made.factory, steps_of(made.factory))
        self._state, self._called = program.start(), len(made.clients)
        self._engine: EmbeddedEngine | Workers = EmbeddedEngine(made.clients, program)
        if workers > 1:
            box = ReleaseBox(None)
            self._engine = Workers(made.clients, program, workers, box, (), Own())
        self.recorder = Recorder(None, made.config, self._called)
        self.parties = LocalParties(
            program, self._state, self._engine.crew, lambda *_: None, self.recorder
        )
        self.parameters = vector_size(made.factory.encoder_projector())

    def run(self, rounds: int, clock: Callable[[], float]) -> list[float]:
        """Seconds of each."""
        found = []
        for _ in range(rounds):
            begun = clock()
            self._state, _ = self.parties.run(self._state, self._called)
            found.append(clock() - begun)
        return found

    def close(self) -> None:
        """End its workers."""
        self._engine.close()


def reachable(root: object, without: tuple[object, ...]) -> int:
    """Bytes of everything that can be reached from an object; arrays and tensors with their
    values, memory that several views share once.
    """
    known = {id(each) for each in without}
    seen, left, total = known, [root], 0
    buffers: dict[int, int] = {}
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, _SKIPPED):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, Tensor):
            storage = one.untyped_storage()
            buffers[storage.data_ptr()] = storage.nbytes()
        left += gc.get_referents(one)
    return total + sum(buffers.values())


class ServerMemory:
    """The most that is reachable from a server while it works, without the run's transcript."""

    def __init__(self, running: Rounds) -> None:
        self.most, self._count = 0, 0
        parties, recorder = running.parties, running.recorder
        self._server = parties.server
        self._without = (parties, parties.watched, recorder, *vars(recorder).values())
        self._receive = parties.server.receive
        parties.server.receive = self._watched  # type: ignore[method-assign]

    def _watched(self, data: bytes | memoryview) -> Any:
        sent = self._receive(data)
        self._count += 1
        if self._count % _EVERY == 0:
            without = (*self._without, self._receive, self, sent)
            self.most = max(self.most, reachable(self._server, without))
        return sent


def overhead(arguments: argparse.Namespace) -> dict[str, object]:
    """A round's time, and where it goes."""
    rounds = arguments.rounds
    made = federation(
        arguments.clients, 2 * rounds + 1, arguments.examples, linear(_width(arguments.parameters))
    )
    running, profile = Rounds(made), cProfile.Profile()
    running.run(1, time.process_time)
    with _timed_answers() as answers:
        times = running.run(rounds, time.process_time)
    training = sum(answers) / rounds
    with _timed_answers(profile):
        profile.enable()
        running.run(rounds, time.process_time)
        profile.disable()
    found = spent(profile, training, sum(times) / rounds - training)
    return _row("overhead", arguments.clients, running.parameters, 1, times, found)


@contextmanager
def _timed_answers(profile: cProfile.Profile | None = None) -> Iterator[list[float]]:
    """The processor seconds of each client's answer; a profile is off meanwhile."""
    seconds: list[float] = []
    answered = Client.answered

    def timed(client: Client, *arguments: Any) -> Any:
        if profile is not None:
            profile.disable()
        begun = time.process_time()
        try:
            return answered(client, *arguments)
        finally:
            seconds.append(time.process_time() - begun)
            if profile is not None:
                profile.enable()

    Client.answered = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        Client.answered = answered  # type: ignore[method-assign]


def clients(arguments: argparse.Namespace) -> dict[str, object]:
    """A round's time and memory with so many clients."""
    made = federation(
        arguments.clients, 2 * arguments.rounds + 1, 32, linear(_width(arguments.parameters))
    )
    running = Rounds(made)
    times = running.run(arguments.rounds + 1, time.process_time)[1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = ServerMemory(running)
    running.run(1, time.process_time)
    row = _row("clients", arguments.clients, running.parameters, 1, times, None)
    return row | {"server_bytes": memory.most, "peak_bytes": peak}


def workers(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Rounds of one process and of two workers, in turn."""
    count = arguments.clients
    made = federation(count, arguments.rounds + 1, arguments.examples)
    both = {number: Rounds(made, number) for number in (1, 2)}
    times: dict[int, list[float]] = {number: [] for number in both}
    try:
        for _ in range(arguments.rounds + 1):
            for number, running in both.items():
                times[number] += running.run(1, time.perf_counter)
    finally:
        for running in both.values():
            running.close()
    return [
        _row("workers", count, both[number].parameters, number, found[1:], None)
        for number, found in times.items()
    ]


def _row(
    part: str, count: int, parameters: int, processes: int, times: list[float], where: Spent | None
) -> dict[str, object]:
    shares = ("", "", "", "")
    if where is not None:
        whole = where.training + where.cryptography + where.rest
        parts = (where.training, where.cryptography, where.rest)
        shares = (*(f"{one / whole:.4f}" for one in parts), f"{where.overhead:.4f}")  # type: ignore[assignment]
    return {
        "part": part,
        "clients": count,
        "parameters": parameters,
        "workers": processes,
        "rounds": len(times),
        "seconds": f"{median(times):.4f}",
        "training": shares[0],
        "cryptography": shares[1],
        "rest": shares[2],
        "server_bytes": "",
        "peak_bytes": "",
    }


def _width(parameters: int) -> int:
    """Of an encoder of about so many weights, with its projector."""
    return max(8, parameters // (2 * _SIDE**2))


def _each_alone(arguments: argparse.Namespace) -> None:
    """Every number of clients in a process of its own, as peak memory never goes down."""
    for count in arguments.counts:
        command = [sys.executable, "-m", "bench.parties", "clients", "--clients", str(count)]
        settings = ("parameters", "rounds")
        more = [f"--{name}={getattr(arguments, name)}" for name in settings]
        subprocess.run([*command, *more], check=True)


def main() -> None:
    """Measure one part, and add its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", choices=("overhead", "clients", "workers"))
    parser.add_argument("--clients", type=int, default=0)
    parser.add_argument("--counts", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--parameters", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=0)
    arguments = parser.parse_args()
    where = provenance(["tenseal"])
    if arguments.part == "clients" and not arguments.clients:
        arguments.parameters = arguments.parameters or 100_000
        _each_alone(arguments)
        return
    arguments.parameters = arguments.parameters or 1_000_000
    arguments.examples = arguments.examples or (2000 if arguments.part == "workers" else 48)
    arguments.clients = arguments.clients or (8 if arguments.part == "workers" else 16)
    one = overhead if arguments.part == "overhead" else clients
    found = workers(arguments) if arguments.part == "workers" else [one(arguments)]
    for row in found:
        append_row(CSV, row, where)
        print(row)


if __name__ == "__main__":
    main()
