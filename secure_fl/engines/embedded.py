"""All clients in this process, one after the other: for simulations, tests and small pilots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from secure_fl.data.partitions import ClientData
from secure_fl.engines.parties import HereCrew
from secure_fl.federation.client import Client
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.observe import Seen
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import State
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.steps.step import Step
from secure_fl.privacy.ledger import Charges, Release
from secure_fl.privacy.noise import NoiseSource

Places = Sequence[tuple[int, int]]
"""(place in the cohort, client) of everybody who is asked."""


class EmbeddedEngine:
    """Plain calls. Everybody shares a process and one replica, so nothing is hidden from anybody:
    the report says so.
    """

    def __init__(
        self,
        clients: Sequence[ClientData],
        program: StepProgram,
        results: ReleaseBox | Path | None = None,
        already: Callable[[int], tuple[Charges, ...]] = lambda _: ((),),
    ) -> None:
        """`results`: where private results are kept until the run ends, or its folder.

        `already`: what earlier runs may have released of a client.
        """
        bench, noise = Workbench(program.factory), new_noise()
        self.results = results if isinstance(results, ReleaseBox) else ReleaseBox(results)
        self.clients = [
            Client.of(program, data, bench, noise, self.results, already(data.id))
            for data in clients
        ]

    @property
    def crew(self) -> HereCrew:
        """Its clients, as parties of a federation."""
        return HereCrew(self.clients)

    def close(self) -> None:
        """Nothing: it ends with this process."""

    def releases(self, state: State, places: Places) -> list[Release]:
        """What the clients would release by answering."""
        answering = ((position, self.clients[client]) for position, client in places)
        return [each for position, client in answering for each in client.releases(state, position)]

    def scored(self, step: Step, state: State) -> Iterator[tuple[int, Seen]]:
        """What the experimenter reads off every client. The pool that it would choose, and how it
        fares there.
        """
        for number, client in enumerate(self.clients):
            yield number, client.scored(step, state, number)

    def remind(self, choices: Mapping[str, int]) -> None:
        """Remind clients of the pools that they used, where their sketches are gone."""
        for client, pool in choices.items():
            self.clients[int(client)].local.before = pool

    def recalled(self, state: State) -> list[Release]:
        """What `recall` would release anew."""
        return [release for client in self.clients for release in client.recalled(state)]

    def recall(self, state: State) -> None:
        """Every client takes up the sketch again that it released before this process began."""
        for client in self.clients:
            client.recall(state)


def new_noise() -> NoiseSource:
    """The source of all noise of a run, keyed by the operating system. A function, so that tests
    can put a repeatable one in its place.
    """
    return NoiseSource.fresh()
