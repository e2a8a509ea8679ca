"""A federation of a few made-up clients, whose parties send each other what those of a run send."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from secure_fl.config import FederationConfig
from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.engines.queue import Here, Queue
from secure_fl.federation.parties.authority import FederationAuthority
from secure_fl.federation.parties.calling import Call, round_plans
from secure_fl.federation.parties.client import FederationClient, Site
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import State
from secure_fl.federation.summing import Opening, Summed
from secure_fl.federation.wire import route
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.store import MemoryStore

Sent = Counter[tuple[Phase, bool, bool]]
"""Bytes by (phase, whether to the server, whether the authority sent or got them)."""
_ROLES = ("coordinator", "server", "authority")
_BESIDE = (Phase.HELLO, Phase.PLAN, Phase.JOIN, Phase.MAKE, Phase.KEYS, Phase.SECRET)
"""Phases that belong to no round."""
_LARGEST_STATE = 1 << 20


class Size(NamedTuple):
    """How many sums a round has, and clients each of them."""

    groups: int
    each: int

    @property
    def clients(self) -> int:
        """In all sums."""
        return self.groups * self.each


@dataclass(frozen=True)
class SmallRound:
    """What one round was.

    Attributes:
        plan: of one of its sums.
        sent: in it, without the transcript's lines.
    """

    plan: RoundPlan
    sent: Sent = field(repr=False)


@dataclass(frozen=True)
class _Program:
    """Rounds of given forms, whose sums change nothing but a number."""

    forms: tuple[SumForm, ...]

    def start(self) -> State:
        return State(Place(0, 0), {"rounds": torch.zeros(1)})

    def form(self, place: Place) -> SumForm:
        return self.forms[place.round]

    def done(self, place: Place) -> bool:
        return place.round >= len(self.forms)

    def following(self, place: Place) -> Place:
        return Place(0, place.round + 1)

    def apply(self, state: State, opened: Summed) -> State:
        moved = state.with_values({"rounds": state.tensors["rounds"] + 1})
        return moved.at(self.following(state.place))


@dataclass(frozen=True)
class _Ones:
    """A client that counts in every pool, so that few clients open as many pools as there are."""

    program: _Program

    def releases(self, state: State, position: int) -> Sequence[Release]:
        return ()

    def answer(self, state: State, position: int) -> Blocks:
        form = self.program.form(state.place)
        shape = form.shape
        sizes = ((shape.head_fields,), (shape.shared,), (shape.pools, shape.width))
        head, shared, pools = (torch.ones(size, dtype=torch.int64) for size in sizes)
        return Blocks(form.opening.count_unit * head, shared, pools)


class SmallFederation:
    """All its parties in this process, round by round, with sums of the given shapes in order,
    opened as `opening` says but for who must be in them; masks are shared among all clients of a
    sum.
    """

    def __init__(
        self, config: FederationConfig, size: Size, shapes: Iterable[BlockShape], opening: Opening
    ) -> None:
        grouped = size.each if size.groups > 1 else None
        bound = max(opening.head_bound, opening.count_unit + 1)  # each counts in every pool
        opening = replace(opening, fewest=1, minimum=1, head_bound=bound, group_size=grouped)
        cohort = tuple(range(size.clients))
        forms = tuple(SumForm("made up", cohort, shape, opening, True) for shape in shapes)
        self._program, self._place = _Program(forms), Place(0, 0)
        self._sent = dict[int, Sent]()
        names = [f"client-{number:04d}" for number in cohort]
        people = [Identity.generate(name) for name in names]
        others = {role: Identity.generate(role, role) for role in _ROLES}
        everybody = tuple(one.member for one in (*others.values(), *people))
        self._roster = Roster("embedded", everybody, config.security.rotation_rounds)
        self._roster = Roster.open(
            self._roster.sign(others["coordinator"]), others["coordinator"].member
        )
        self._plan = _plan(config, self._program, self._roster)
        signed = self._plan.sign(others["coordinator"], self._roster)
        self._server = FederationServer(others["server"], self._roster, signed, self._program)
        parties = self._parties(people, others["authority"])
        self._queue = Queue([Here([self._server]), Here(parties)], "server", tap=self._tap)

    def run(self) -> SmallRound:
        """The next round.

        Raises:
            SecureFLError: it failed.
        """
        place = self._place = self._server.place
        self._queue.run(until=lambda: self._server.place != place or self._server.over)
        if self._server.failed is not None:
            raise self._server.failed
        call = Call(place.round, place)
        plans = round_plans(self._plan, self._roster, self._program.form(place), call)
        return SmallRound(plans[0], self._sent.pop(place.round))

    def _parties(
        self, people: Sequence[Identity], authority: Identity
    ) -> list[FederationClient | FederationAuthority]:
        program, roster, shared = self._program, self._roster, Shared()
        site = Site(lambda _: (program, _Ones(program)))
        parties = list[FederationClient | FederationAuthority]()
        for one in people:
            store = MemoryStore(bytes_too=False)
            parties.append(FederationClient(one, roster, site, store=store, shared=shared))
        if self._plan.by_authority:
            parties.append(FederationAuthority(authority, roster, lambda _: program, shared=shared))
        return parties

    def _tap(self, sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview:
        header = route(data)
        if header.phase not in _BESIDE:
            number = self._place.round if header.phase == Phase.STATE else header.round
            key = (header.phase, to == "server", "authority" in (sender, to))
            self._sent.setdefault(number, Sent())[key] += len(data)
        return data


def _plan(config: FederationConfig, program: _Program, roster: Roster) -> Plan:
    """The plan of so few, with everything that a small cohort cannot have left out."""
    security = config.security.model_dump(include={"protection", "key_holder", "rotation_rounds"})
    few = FederationConfig.model_validate({"security": security})
    return Plan(
        few.model_dump(mode="json"),
        (1,),
        0,
        roster.names("client"),
        roster.digest,
        hashlib.sha256(b"").digest(),
        program.start().digest,
        _LARGEST_STATE,
        "server",
        "authority" if few.security.key_holder == "authority" else "",
    )
