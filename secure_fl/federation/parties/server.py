"""The server of a federation: a clock and an adder.

It calls cohorts, waits until deadlines, adds what it cannot read, passes on keys and states that
are sealed for others, and counts signatures. Where the program goes it learns from what appliers
sign, never from a model.

    JOIN → KEYS → SUM (→ PARTS → RESULTS) → … → OVER

Beside a round goes the set-up of the next, for which nothing waits (`ahead`). It is called if it is
what would be called without, whoever is there by then; else the next number is taken.

Guarantee: it holds no model, no key and no choice; only `publish_models` in the plan, which
everybody has seen, gives it the models, sealed to its own key like to everybody's. A round that
fails is tried again without whom it blames, at most three times, and only while nobody has sent
what opens anything; thresholds stay the whole cohort's, also where sites were revoked, for whose
parties nobody waits. Every wait has an end.
Assumes: one server runs a federation at a time.
Not covered: a server that does otherwise; clients and authority see to what it gains.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from secure_fl.crypto.envelope import Header, Phase, read_header, signed_header
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.strict_json import from_hex
from secure_fl.errors import FileError, SecureFLError
from secure_fl.federation.parties.claims import read_result
from secure_fl.federation.parties.party import Message, typed_files
from secure_fl.federation.parties.server_flow import ServerFlow
from secure_fl.federation.parties.server_record import Stage, keys_facts
from secure_fl.federation.wire import Post, route, shown
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.steps import claimed

_NUMBERED = {phase for phase in Phase if phase < Phase.HELLO} | {
    Phase.REFUSE,
    Phase.PART,
    Phase.RESULT,
}
"""What a client sends under a round's number."""


class FederationServer(ServerFlow):
    """The server, as a party. Raises RefusedError: a plan that is not its coordinator's.

    Args:
        identity: of role `server`.
        roster: in force.
        plan: as its coordinator signed it.
        schedule: of the program that the plan makes.
        start: where the program is; at its beginning where none is given.
        number: of the first call; more than any that was made before in this federation.
        deadlines: how long it waits.
        journal: where it writes what happens.
    """

    def tick(self, now: float) -> list[Message]:
        """End what has waited for too long, or for nobody who can come."""
        self._now = max(self._now, now)
        sent: list[Message] = []
        with typed_files():
            if (revoked := self.revoked()) != self._revoked:
                sent += self._go_without(revoked)
            if self._states.until is not None and self._now >= self._states.until:
                sent += self._ask_state()
            if self._now >= self._until and not self.over:
                sent += self._go(self._overdue)
        return self._remember(sent)

    def receive(self, data: bytes | memoryview) -> list[Message]:
        """One message, and what is to be sent because of it. Raises FileError: its journal cannot
        be written; nothing is sent then, by `tick` neither.
        """
        sent: list[Message] = []
        with typed_files():
            try:
                sent = self._take(route(data), data)
            except FileError:
                raise  # of its own record: what is not written down has not happened
            except SecureFLError as error:
                self._note(self.refusals.add(data, error))
        self._heard(data)
        return self._remember(sent)

    def _heard(self, data: bytes | memoryview) -> None:
        """Wait again for a client that had fallen silent: it is late for its round, and there for
        the next. Its signature shows that, of the round in which it fell silent or a later one;
        whoever sends it again shows nothing the second time.
        """
        attempt, name = self._attempt, claimed(data)[0]
        if name not in self._silent and (attempt is None or name not in attempt.silent):
            return
        with suppress(RefusedError):
            header = route(data, lambda head: signed_header(head, self._wire.roster))
            if header.phase in _NUMBERED and header.round >= self._silent.get(name, 0):
                self._silent.pop(name, None)
                if attempt is not None and header.round >= attempt.call.number:
                    attempt.hear(name)

    # What arrives

    def _take(self, header: Header, data: bytes | memoryview) -> list[Message]:
        if header.phase < Phase.HELLO and header.phase != Phase.KEYS:
            return self._on_sum(header, data)
        if header.phase in (Phase.KEYS, Phase.SECRET):
            return self._on_keys(bytes(data))
        takes: dict[Phase, Callable[[Post, bytes], list[Message]]] = {
            Phase.HELLO: self._on_hello,
            Phase.JOIN: self._on_join,
            Phase.REFUSE: self._on_refusal,
            Phase.PART: self._on_part,
            Phase.RESULT: self._on_result,
            Phase.WANT: self._on_want,
            Phase.STATE: self._on_state,
        }
        role = self._wire.roster.member(header.sender).role
        if header.phase not in takes or role not in ("client", "authority"):
            word = header.phase.name
            raise RefusedError(Reason.WRONG_PHASE, "not for a server", "phase", word, "send it on")
        most = self.plan.most(header.phase)
        post = self._wire.open(data, most=most, role=role)
        return takes[header.phase](post, bytes(data))

    def _on_hello(self, post: Post, data: bytes) -> list[Message]:
        self._known(post.sender)
        return [Message(post.sender, self._plan_data)]

    def _on_join(self, post: Post, data: bytes) -> list[Message]:
        self._known(post.sender)
        head = from_hex(post.facts["head"], "head", 32)
        known = self._members.get(post.sender)
        # one that is made again is where it was, before or after the call that it is told again
        authority = post.sender == self.plan.authority  # it follows no transcript
        back = authority or head in (known, self._before.get(post.sender))
        again = back and post.sender in self._called and not self.over
        self._members[post.sender] = known if known is not None and again else head
        self._declined.discard(post.sender)
        if back:
            self._silent.pop(post.sender, None)
            if self._attempt is not None:
                self._attempt.hear(post.sender)
        if post.sender in self.plan.clients and known is None:
            fingerprint = self._wire.roster.member(post.sender).fingerprint
            facts = {"client": post.sender, "fingerprint": fingerprint, "policy": None}
            self._journal.write("joined", facts, [data])
        sent = [Message(post.sender, data) for data in self._keys.current]
        asked = [Message(post.sender, data) for data in self._states.again(post.sender)]
        if self._states.held(post, data) and self._states.waiting:
            asked += self._ask_state()
        if self.over:
            return [*sent, *self._end([post.sender]), *asked]
        said = self._said_to(post.sender) if back else []
        if said or asked:
            return [*sent, *(Message(post.sender, data) for data in said), *asked]
        return sent + (self._go(self._next) if self._waits_no_more() else [])

    def _said_to(self, name: str) -> list[bytes | memoryview]:
        """What a member that is made again was told last, of the running round and of the next. A
        client finds its place in the sum first, and answers the call then.
        """
        told, number = self._told.get(name, {}), self._progress.number
        said = [data for of, data in told.items() if of[0] == number]
        called = [self._called[name]] if name in self._called else []
        said = [*called, *said] if name == self.plan.authority else [*said, *called]
        return [*said, *(data for of, data in told.items() if of[0] != number)]

    def _on_refusal(self, post: Post, data: bytes) -> list[Message]:
        self._known(post.sender)
        if len(self.said) < 256:
            self.said.append({"sender": post.sender, "round": post.header.round, **post.facts})
        about, reason = post.facts["about"], post.facts["reason"]
        self._note(self.refusals.note(self.name, about[:64], reason[:64], len(data)))
        if about == "plan":
            self._declined.add(post.sender)
            self._members.pop(post.sender, None)
            return self._go(self._next) if self._waits_no_more() else []
        unopened = about == "state" and reason == Reason.WRONG_KEY and not self.plan.by_authority
        if unopened and post.sender in self._members:
            self._states.doubt(post.sender)
            asked = self._ask_state() if self._states.until is None else []
            return asked if self._states.until is not None else self._leave(post)
        holder = "" if self._states.until is None else self._states.asked[0]
        if about == "give" and holder == post.sender and self.stage != Stage.PARTS:
            return self._ask_state()
        return self._leave(post)

    def _leave(self, post: Post) -> list[Message]:
        """A member goes no further in the running round."""
        attempt, ahead, sender = self._attempt, self._ahead, post.sender
        if ahead is not None and post.header.round == ahead.call.number:
            ahead.leave(sender, post.facts["reason"][:64], post.names("blamed"))
            return []
        if self.stage == Stage.KEYS and sender == self._keys.maker:
            return self._go(self._make_keys)
        if attempt is None or post.header.round != attempt.call.number:
            return []
        blamed, expected = post.names("blamed"), self._progress.asked
        if self.stage == Stage.RESULTS and blamed and sender in expected:
            self._progress.doubts[sender] = frozenset(blamed)  # it takes the sums if they open
        else:
            attempt.leave(sender, post.facts["reason"][:64], blamed)
        if self.stage == Stage.PARTS:
            return self._go(self._ask_parts)
        if self.stage == Stage.RESULTS:
            expected.discard(sender)
            return self._go(self._end_results) if not expected - self._revoked else []
        return self._go(self._pump) if self.stage == Stage.SUM else []

    def _on_keys(self, data: bytes) -> list[Message]:
        if self.stage != Stage.KEYS:
            raise RefusedError(Reason.WRONG_PHASE, "no keys are made", "stage", self.stage, "wait")
        self._keys.take(data)
        if self._reader is not None and read_header(data).phase == Phase.SECRET:
            self._reader.take_secret(data)
        sent = [Message(name, data) for name in self._members]
        if any(self._keys.missing(self._following).values()):
            return sent
        if self._keys.epoch is not None:
            facts = keys_facts(self._keys.fingerprint, self._keys.maker, self._keys.epoch)
            self._journal.write("keys", facts, [])
        return sent + self._go(self._next)

    def _on_sum(self, header: Header, data: bytes | memoryview) -> list[Message]:
        attempt, ahead = self._attempt, self._ahead
        if header.round == self._progress.vain:
            return []  # its sender did not know yet
        riding = ahead is not None and header.round == ahead.call.number
        running = ahead if riding else attempt
        if running is None or (self.stage != Stage.SUM and not riding):
            remedy = "wait for a call"
            raise RefusedError(Reason.STALE, "no sum is under way", "round", header.round, remedy)
        reason = running.receive(header, data)
        if reason is not None:
            self._note(
                self.refusals.note(header.sender, header.phase.name.lower(), reason, len(data))
            )
            return []
        if riding and attempt is not None:
            attempt.answered.add(header.sender)
        return self._go(running.prepare if riding else self._pump)

    def _on_part(self, post: Post, data: bytes) -> list[Message]:
        attempt, progress, part = self._attempt, self._progress, post.facts["part"]
        right = self.stage == Stage.PARTS and attempt is not None and part in attempt.opened
        if not right or post.sender not in progress.asked or part in progress.parts:
            raise RefusedError(Reason.WRONG_PHASE, "nobody asked for it", "part", part, "wait")
        assert attempt is not None
        progress.parts[part] = frames([data, *attempt.sums[part].signed.values()])
        progress.sealers[part] = post.sender
        return self._go(self._ask_parts)

    def _on_result(self, post: Post, data: bytes) -> list[Message]:
        attempt, progress = self._attempt, self._progress
        if self.stage != Stage.RESULTS or attempt is None or post.sender not in progress.asked:
            problem = "nobody asked for it"
            raise RefusedError(Reason.WRONG_PHASE, problem, "result", post.sender, "wait")
        name, claim = read_result(self._wire, self.plan, attempt.plans, attempt.call, data)
        progress.results[name] = claim, data
        progress.asked.discard(name)
        return self._go(self._end_results) if not progress.asked - self._revoked else []

    def _on_want(self, post: Post, data: bytes) -> list[Message]:
        claim = self._states.claim
        if post.sender not in self._members or claim is None or post.place != claim.place:
            problem = "not the state that is reached"
            raise RefusedError(Reason.STALE, problem, "place", shown(post.place), "wait")
        if self._states.sealed:
            return [Message(post.sender, self._states.message())]
        self._states.waiting.add(post.sender)
        return self._ask_state() if self._states.until is None else []

    def _on_state(self, post: Post, data: bytes) -> list[Message]:
        if not self._states.take(post):
            return []
        self._publish()
        readers = self._members if self.plan.by_authority else self._states.waiting
        message = self._states.message()
        sent = [Message(name, message) for name in readers if name != self.plan.authority]
        self._states.waiting = set()
        return sent

    def _overdue(self) -> list[Message]:
        ends: dict[Stage, Callable[[], list[Message]]] = {
            Stage.JOIN: lambda: self._next(final=True),
            Stage.KEYS: self._make_keys,
            Stage.SUM: self._pump,
            Stage.PARTS: self._ask_parts,
            Stage.RESULTS: self._end_results,
        }
        return ends[self.stage]()

    def _waits_no_more(self) -> bool:
        return self.stage == Stage.JOIN and not self._missing()

    def _known(self, name: str) -> None:
        if name not in self.plan.clients and name != self.plan.authority:
            raise RefusedError(Reason.UNKNOWN_CLIENT, "not in the plan", "sender", name, "join")
