"""The authority of a federation, where one holds the key. It opens sums, has the models, and seals
them for the clients.

Guarantee: it opens counts and pools as `Authority` of a round does, applies the opened sums to its
replica, and gives the models out sealed only.
Assumes: it is not the server.
Not covered: an authority that lies: it alone says what the sums were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from secure_fl.crypto.envelope import Header, Phase
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.strict_json import from_hex
from secure_fl.errors import FileError
from secure_fl.federation.parties.calling import Call, round_plans
from secure_fl.federation.parties.client_round import forked
from secure_fl.federation.parties.keyring import Keyring
from secure_fl.federation.parties.participant import Participant
from secure_fl.federation.parties.replica import Replica
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Program
from secure_fl.federation.state import State
from secure_fl.federation.wire import Post, route, shown
from secure_fl.secure_sum.authority import Authority
from secure_fl.secure_sum.digests import NOTHING, Next
from secure_fl.secure_sum.opener import Opened
from secure_fl.secure_sum.store import MemoryStore, RoundStore


class FederationAuthority(Participant):
    """The key holder, as a party.

    Args:
        identity: of role `authority`.
        roster: in force.
        prepare: makes the program of a plan.
        judge: why it does not take part in a plan, None where it does.
        shared: what parties of one process share.
        randomness: uniform secret bytes.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        prepare: Callable[[Plan], Program],
        *,
        judge: Callable[[Plan], str | None] = lambda _: None,
        shared: Shared | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        super().__init__(identity, roster)
        self._prepare, self._judge = prepare, judge
        self._shared, self._randomness = shared or Shared(), randomness
        self._plan: Plan | None = None
        self._replica: Replica | None = None
        self._keyring: Keyring | None = None
        self._call: Call | None = None
        self._sums: dict[str, Authority] = {}
        self._opened: dict[int, Opened] = {}
        self._rounds: Callable[[int], RoundStore] = lambda _: MemoryStore()
        self._next: State | None = None
        self.over = False

    @property
    def state(self) -> State | None:
        """The models, once there is a plan."""
        return None if self._replica is None else self._replica.state

    def _take(self, data: bytes | memoryview) -> Sequence[bytes | memoryview]:
        header, data = route(data), bytes(data)
        if header.phase == Phase.PLAN:
            return self._on_plan(data)
        plan, _, keyring = self._seated()
        if header.phase in (Phase.KEYS, Phase.SECRET):
            (keyring.take_grant if header.phase == Phase.KEYS else keyring.take_secret)(data)
            return []
        if header.phase < Phase.HELLO:
            return self._on_sum(header, data)
        most = plan.most(header.phase)
        post = self._wire.open(data, most=most, role="server", sender=plan.server)
        takes: dict[Phase, Callable[[Post], list[bytes]]] = {
            Phase.MAKE: self._on_make,
            Phase.BEGIN: self._on_call,
            Phase.END: self._on_call,
            Phase.PARTS: self._on_parts,
            Phase.GIVE: lambda _: [self._sealed()],
        }
        if post.header.phase not in takes:
            problem, remedy = "not for an authority", "send it on"
            raise RefusedError(Reason.WRONG_PHASE, problem, "phase", post.header.phase.name, remedy)
        return takes[post.header.phase](post)

    def _on_plan(self, data: bytes) -> list[bytes]:
        plan = Plan.open(data, self._wire.roster)
        if self._plan is None:
            objection = self._judge(plan) if plan.authority == self.name else "not in this plan"
            if objection is not None:
                digest, remedy = plan.digest.hex()[:16], "change the plan"
                raise RefusedError(Reason.AGAINST_POLICY, objection, "plan", digest, remedy)
            self._sit(plan)
            self._signed = data
        self._due = None
        known, replica, _ = self._seated()
        if plan.digest != known.digest:
            digest = plan.digest.hex()[:16]
            raise RefusedError(
                Reason.OTHER_PLAN, "another was agreed to", "plan", digest, "compare"
            )
        place, digest = shown(replica.place), replica.state.digest.hex()
        facts = {"place": place, "state": digest, "head": bytes(32).hex()}
        return [self._wire.sign(Phase.JOIN, facts)]

    def _sit(self, plan: Plan) -> None:
        self._replica = Replica(plan, self._prepare(plan), self._shared)
        self._wire.plan, self._plan = plan.digest.hex(), plan
        self._keyring = Keyring(self._wire, plan, self._shared, self._randomness)

    def _on_make(self, post: Post) -> list[bytes]:
        grant, secret = bool(post.facts["grant"]), bool(post.facts["secret"])
        return self._seated()[2].make(post.header.round, grant=grant, secret=secret)

    def _on_call(self, post: Post) -> list[bytes]:
        _, replica, keyring = self._seated()
        digest = from_hex(post.facts["state"], "state", 32)
        if (post.place, digest) != (replica.place, replica.state.digest):
            raise forked("the server says another state of this place", shown(post.place))
        if post.header.phase == Phase.END:
            self.over = True
            return []
        facts = {"number": post.header.round, "attempt": post.facts["attempt"]}
        more = {"place": shown(post.place), "left_out": list(post.names("left_out"))}
        call = Call.read({**facts, **more, "key": keyring.fingerprint.hex()})
        before = self._call
        if before is not None and call.number <= before.number:
            raise RefusedError(Reason.REPEATED, "not newer", "round", call.number, "go on")
        self._sums = self._called(call)
        self._call, self._next, self._opened = call, None, {}
        return []

    def _called(self, call: Call) -> dict[str, Authority]:
        """The sums of a call, fresh or as an earlier life has left them, by their plans."""
        plan, replica, keyring = self._seated()
        plans = round_plans(plan, self._wire.roster, replica.program.form(call.place), call)
        sums = dict[str, Authority]()
        for part, one in enumerate(plans):
            holder, store = keyring.holder(one), self._rounds(part)
            assert holder is not None
            applied = self._applied if len(plans) == 1 else partial(self._opened_group, part)
            sums[one.parameter_text] = Authority(
                one, self._wire.identity, holder, store=store, applied=applied
            )
        return sums

    def _on_sum(self, header: Header, data: bytes) -> list[bytes]:
        if not self._sums and self._call is not None:
            self._sums = self._called(self._call)
        if header.parameters not in self._sums:
            problem, remedy = "of no running sum", "call first"
            raise RefusedError(Reason.WRONG_PARAMETERS, problem, "sum", header.parameters, remedy)
        sums = self._sums[header.parameters]
        try:
            replies = sums.receive(data)
        except (FileError, OSError):
            self._sums = {}  # as after a kill: it goes on with what is on the disk
            raise
        last = header.phase == Phase.OPEN_POOLS and len(self._sums) == 1
        return [*(self._go_on() if last else []), *replies]

    def _on_parts(self, post: Post) -> list[bytes]:
        """The server says which groups were opened; what follows from them, signed."""
        _, replica, _ = self._seated()
        call, sums, words = self._call, list(self._sums.values()), post.facts["left_out"]
        if call is None or post.header.round != call.number or len(sums) < 2:
            number = post.header.round
            raise RefusedError(Reason.STALE, "not the running round", "round", number, "call first")
        if replica.place > call.place:  # it was asked before
            return [self._sealed(), self._result(replica.state, call)]
        chosen = [self._opened.get(part) for part in post.facts["parts"] if type(part) is int]
        opened: list[Opened] = [one for one in chosen if one is not None]
        right = opened and len(opened) == len(post.facts["parts"])
        if not right or len(opened) + len(words) != len(sums):
            problem = "not opened here"
            raise RefusedError(Reason.WRONG_PHASE, problem, "parts", len(opened), "open them")
        self._next = replica.after(opened, words)
        result = self._result(self._next, call)
        return [*self._go_on(), result]

    def _result(self, state: State, call: Call) -> bytes:
        facts = {"place": shown(state.place), "state": state.digest.hex()}
        return self._wire.sign(Phase.RESULT, facts, number=call.number)

    def _applied(self, opened: Opened) -> Next:
        self._next = self._seated()[1].after([opened])
        self._keep()
        return self._next.digest, (self._next.place.step, self._next.place.round)

    def _opened_group(self, part: int, opened: Opened) -> Next:
        self._opened[part] = opened
        self._keep()
        return NOTHING

    def _go_on(self) -> list[bytes]:
        """Take the next state; it goes out sealed, before what says that it is there."""
        if self._next is not None:
            self._seated()[1].state, self._next = self._next, None
        return [self._sealed()]

    def _sealed(self) -> bytes:
        _, replica, keyring = self._seated()
        return replica.sealed(self._wire, keyring.secret, replica.state)

    def _seated(self) -> tuple[Plan, Replica, Keyring]:
        if self._plan is None or self._replica is None or self._keyring is None:
            remedy = "send the plan"
            raise RefusedError(Reason.STALE, "no plan was agreed to", "plan", self.name, remedy)
        return self._plan, self._replica, self._keyring
