"""A federation of a few integer vectors: two pools, of which one stays closed; no training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from secure_fl.config import FederationConfig
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.engines.queue import Here, Queue, Tap
from secure_fl.federation.parties.attempt import Deadlines
from secure_fl.federation.parties.authority import FederationAuthority
from secure_fl.federation.parties.client import FederationClient, Site
from secure_fl.federation.parties.party import Party
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import Place, State
from secure_fl.federation.summing import Opening, Summed
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.store import MemoryStore

WIDTH, BOUND, MINIMUM = 6, 100, 3


@dataclass(frozen=True)
class Toy:
    """`rounds` rounds in one step: clients add a vector to the pool that they choose."""

    clients: int
    rounds: int = 2
    groups: int | None = None

    def start(self) -> State:
        tensors = {"pools": torch.zeros(2, WIDTH, dtype=torch.float64)}
        return State(Place(0, 0), tensors, {"survivors": []})

    def form(self, place: Place) -> SumForm:
        opening = Opening(BOUND, minimum=MINIMUM, group_size=self.groups, group_seed=b"toy")
        cohort = tuple(range(self.clients))
        return SumForm("toy", cohort, BlockShape(2, WIDTH, 3), opening, True)

    def done(self, place: Place) -> bool:
        return place.round >= self.rounds

    def following(self, place: Place) -> Place:
        return Place(place.step, place.round + 1)

    def apply(self, state: State, opened: Summed) -> State:
        pools = state.tensors["pools"] + opened.total.pools.double() / max(1, opened.survivors)
        facts = {"survivors": [*state.facts["survivors"], opened.survivors]}
        facts["groups"] = [len(opened.groups), list(opened.left_out)]
        return State(self.following(state.place), {"pools": pools}, facts)


@dataclass(frozen=True)
class Sampled(Toy):
    """Other clients in each round."""

    cohorts: tuple[tuple[int, ...], ...] = ((0, 1, 2, 3), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 2, 3))

    def form(self, place: Place) -> SumForm:
        return replace(super().form(place), cohort=self.cohorts[place.round])


@dataclass(frozen=True)
class Short(Toy):
    """A step of at most four rounds that ends after two, and one of two rounds after it."""

    def done(self, place: Place) -> bool:
        return place.step > 1

    def following(self, place: Place) -> Place:
        more = place.round + 1 < (4, 2)[place.step]
        return Place(place.step, place.round + 1) if more else Place(place.step + 1, 0)

    def apply(self, state: State, opened: Summed) -> State:
        moved = super().apply(state, opened)
        return moved.at(Place(1, 0)) if moved.place == Place(0, 2) else moved


@dataclass(frozen=True)
class ToyAnswers:
    """The first client alone chooses pool 1, which so stays closed."""

    client: int

    def releases(self, state: State, position: int) -> Sequence[Release]:
        return ()

    def answer(self, state: State, position: int) -> Blocks:
        values = torch.arange(WIDTH) + 10 * self.client - state.place.round
        choice = int(self.client == 0)
        head = torch.tensor([1 - choice, choice])
        rows = [values if pool == choice else torch.zeros_like(values) for pool in range(2)]
        return Blocks(head, torch.full((3,), self.client), torch.stack(rows))


def expected(clients: Sequence[int], rounds: int) -> torch.Tensor:
    """What the pools are when these clients survive every round."""
    pools = torch.zeros(2, WIDTH, dtype=torch.float64)
    for number in range(rounds):
        moved = sum(torch.arange(WIDTH) + 10 * one - number for one in clients if one)
        pools[0] += torch.as_tensor(moved).double() / len(clients)
    return pools


def configuration(program: Toy, protection: str, key_holder: str = "clients") -> FederationConfig:
    """Of a run of this program, whose sums are protected so."""
    security = {"protection": protection, "key_holder": key_holder}
    security |= {"robust": "median", "group_size": program.groups} if program.groups else {}
    cohort = len(program.form(Place(0, 0)).cohort)
    whole = cohort == program.clients and not program.groups
    rounds = {"participation": cohort / program.clients}
    pools = {"count": 1, **rounds, **({} if whole else {"start": "random"})}
    partition = {"clients": program.clients, "kind": "iid"}
    return FederationConfig(partition=partition, pretrain=rounds, pools=pools, security=security)


@dataclass
class Made:
    """All parties of a toy federation, and who they are."""

    plan: Plan
    signed: bytes
    roster: Roster
    identities: dict[str, Identity]
    server: FederationServer
    clients: list[FederationClient]
    authority: FederationAuthority | None = None
    lost: set[str] = field(default_factory=set)

    @property
    def parties(self) -> list[Party]:
        return [self.server, *self.clients, *([self.authority] if self.authority else [])]

    def run(self, tap: Tap | None = None) -> None:
        """Until it is over; who is `lost` neither hears nor says anything."""

        def heard(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
            if {sender, to} & self.lost:
                return None
            return data if tap is None else tap(sender, to, data)

        hosts = [Here([self.server]), Here(self.parties[1:])]
        Queue(hosts, self.server.name, tap=heard).run()

    def pools(self) -> list[torch.Tensor]:
        return [client.state.tensors["pools"] for client in self.clients if client.state]


def identities(clients: int) -> dict[str, Identity]:
    people = [Identity.generate(name, name) for name in ("coordinator", "server", "authority")]
    people += [Identity.generate(f"client-{number:04d}") for number in range(clients)]
    return {person.name: person for person in people}


def roster_of(people: dict[str, Identity], rotation: int = 2) -> Roster:
    unsigned = Roster("toy", tuple(person.member for person in people.values()), rotation)
    return Roster.open(unsigned.sign(people["coordinator"]), people["coordinator"].member)


def plan_of(
    roster: Roster, program: Toy, protection: str, key_holder: str, publish: bool = False
) -> Plan:
    return Plan(
        configuration(program, protection, key_holder).model_dump(mode="json"),
        (1, 8, 8),
        3,
        roster.names("client")[: program.clients],
        roster.digest,
        hashlib.sha256(b"layout").digest(),
        program.start().digest,
        1 << 16,
        "server",
        "authority" if key_holder == "authority" else "",
        publish_models=publish,
    )


def make(
    clients: int = 4,
    protection: str = "masked",
    key_holder: str = "clients",
    *,
    rounds: int = 2,
    groups: int | None = None,
    rotation: int = 2,
    program: Toy | None = None,
    people: dict[str, Identity] | None = None,
    judge: Callable[[Plan], str | None] = lambda plan: None,
    answers: Callable[[int], ToyAnswers] = ToyAnswers,
    publish: bool = False,
) -> Made:
    """All parties, in this process."""
    people = people or identities(clients)
    roster, program = roster_of(people, rotation), program or Toy(clients, rounds, groups)
    names = roster.names("client")[:clients]
    plan = plan_of(roster, program, protection, key_holder, publish)
    signed, shared = plan.sign(people["coordinator"], roster), Shared()

    def site(number: int) -> Site:
        return Site(lambda plan: (program, answers(number)), judge=judge)

    def client(number: int, name: str) -> FederationClient:
        store = MemoryStore(bytes_too=False)
        return FederationClient(people[name], roster, site(number), shared=shared, store=store)

    made = [client(number, name) for number, name in enumerate(names)]
    server = FederationServer(people["server"], roster, signed, program, deadlines=Deadlines())
    authority = None
    if key_holder == "authority":
        authority = FederationAuthority(
            people["authority"], roster, lambda plan: program, shared=shared
        )
    return Made(plan, signed, roster, people, server, made, authority)
