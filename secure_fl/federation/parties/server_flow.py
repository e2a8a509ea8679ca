"""How a server goes from round to round: whom it calls, what it waits for, when it tries again.

Every function gives the messages that are to be sent; `FederationServer` takes in the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.errors import SecureFLError, SecureSumError
from secure_fl.federation.calling import ATTEMPTS, Call, cohort_names, round_plans
from secure_fl.federation.parties.attempt import (
    Attempt,
    Deadlines,
    Journals,
    forgetful,
    silent_group,
)
from secure_fl.federation.parties.claims import Claim, majority
from secure_fl.federation.parties.keyring import Keyring
from secure_fl.federation.parties.replica import open_state
from secure_fl.federation.parties.server_desks import KeyDesk, StateDesk
from secure_fl.federation.parties.server_record import (
    Journal,
    Schedule,
    Stage,
    call_facts,
    refused_facts,
    sum_facts,
)
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.party import Message, RefusalLog, reason_of
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.state import State
from secure_fl.federation.wire import Wire, route, shown
from secure_fl.secure_sum.block_codec import ServerCipher, server_cipher
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError
from secure_fl.secure_sum.steps import Refusal

_MOST_NOTED = 64
_APART = frozenset({Phase.PLAN, Phase.KEYS, Phase.SECRET, Phase.STATE})
"""What is sent again for other reasons than a kill."""


@dataclass
class _Progress:
    """How far the federation is."""

    place: Place
    state: bytes
    number: int = -1
    attempt: int = 1
    without: frozenset[str] = frozenset()
    parts: dict[int, bytes] = field(default_factory=dict)
    results: dict[str, tuple[Claim, bytes]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)


class ServerFlow:
    """The deciding half of `FederationServer`; made as that is."""

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        plan: bytes,
        schedule: Schedule,
        *,
        start: Place | None = None,
        number: int = 0,
        deadlines: Deadlines | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.name, self._plan_data = identity.name, plan
        self.plan = Plan.open(plan, roster)
        self._wire, self._schedule = Wire(identity, roster), schedule
        self._wire.plan = self.plan.digest.hex()
        self._deadlines, self._journal = deadlines or Deadlines(), journal or Journal()
        self._keys, self._states = KeyDesk(self._wire, self.plan), StateDesk(self._wire)
        self._cipher: ServerCipher | None = None
        self._members: dict[str, bytes] = {}
        """Who has joined, and the transcript's head that each was shown last."""
        self._before, self._called = dict[str, bytes](), dict[str, bytes]()
        """The head that each had before it was called, and that call."""
        self._told: dict[str, bytes | memoryview] = {}
        """What each was told last in the running round."""
        self._journals: Journals | None = None
        self._declined, self._silent = set[str](), set[str]()
        self._progress = _Progress(start or Place(0, 0), self.plan.start, number - 1)
        self._attempt: Attempt | None = None
        self._now, self._until = 0.0, self._deadlines.join
        self.stage, self.failed = Stage.JOIN, None
        published = self.plan.publish_models
        self._reader = Keyring(self._wire, self.plan, Shared()) if published else None
        """Opens sealed states, where the plan publishes the models."""
        self.models: State | None = None
        """The state that is reached, where the plan publishes the models; else never any."""
        self.refusals = RefusalLog(self.name)
        self.said: list[Mapping[str, Any]] = []
        """Signed refusals of members, the first of them."""

    hindrance: SecureSumError | None = None
    """Why the attempt before failed, where the round is tried again."""
    failed: SecureFLError | None
    """Why the federation ended before its program did."""

    @property
    def over(self) -> bool:
        """Whether no round is left, or the federation has failed."""
        return self.stage == Stage.OVER

    @property
    def place(self) -> Place:
        """Where the program is."""
        return self._progress.place

    @property
    def number(self) -> int:
        """Of the attempt that was called last; one less than the first's before it."""
        return self._progress.number

    @property
    def _following(self) -> int:
        """The number that the next call has."""
        return self._progress.number + 1

    @property
    def state(self) -> bytes:
        """Digest of the state at that place, as most appliers signed it."""
        return self._progress.state

    @property
    def due(self) -> float | None:
        """When the next wait ends."""
        waits = [] if self.over else [self._until]
        waits += [self._states.until] if self._states.until is not None else []
        return min(waits, default=None)

    # What happens next

    def _next(self, *, final: bool = False) -> list[Message]:
        """Call the next round, make the keys that it needs, or end.

        Too few members are waited for once; where the wait is `final` the federation ends.
        """
        progress = self._progress
        if self._schedule.done(progress.place):
            return self._finish()
        if any(self._keys.missing(self._following).values()):
            self._wait(Stage.KEYS, self._deadlines.answer)
            return self._make_keys()
        try:
            return self._call()
        except RoundRefusedError:
            if final or not self._missing():
                raise
            self._wait(Stage.JOIN, self._deadlines.join)
            return []

    def _make_keys(self) -> list[Message]:
        makers = [name for name in self.plan.key_makers if name in self._members]
        asked = self._keys.ask(makers, self._following)
        if asked is None:
            raise RoundRefusedError(
                RoundReason.TOO_FEW,
                "nobody makes keys",
                field="makers",
                value=len(makers),
                remedy="begin again when clients can be reached",
            )
        self._wait(Stage.KEYS, self._deadlines.answer)
        return [Message(*asked)]

    def _call(self) -> list[Message]:
        """Call those of the cohort who are there to the next round."""
        plan, progress = self.plan, self._progress
        form = self._schedule.form(progress.place)
        cohort = set(cohort_names(plan, form))
        absent = (cohort - set(self._members)) | (cohort & self._silent)
        left_out = tuple(sorted(absent | (cohort & progress.without)))
        key, number = self._keys.fingerprint, self._following
        call = Call(number, progress.place, progress.attempt, left_out, key)
        plans = round_plans(plan, self._wire.roster, form, call)
        if self._cipher is None or self._attempt is None or self._attempt.call.key != key:
            self._cipher = server_cipher(plans[0])
        progress.number, progress.parts, progress.results = number, {}, {}
        self._told, self._called = {}, {}
        identity, deadlines = self._wire.identity, self._deadlines
        self._attempt = Attempt(
            call, form, plans, identity, self._cipher, deadlines, self._now, self._journals
        )
        for one in plans:
            self._journal.write("round", call_facts(one, call, form), [])
        self._wait(Stage.SUM, self._attempt.until - self._now)
        asked = [*self._attempt.cohort, *([plan.authority] if plan.by_authority else [])]
        facts = {"attempt": call.attempt, "left_out": list(left_out)}
        return self._announce(Phase.BEGIN, asked, facts)

    def _announce(
        self, phase: Phase, names: Sequence[str], more: Mapping[str, Any]
    ) -> list[Message]:
        """A call or the end, with the transcript's lines that each was not shown yet."""
        progress, head = self._progress, self._journal.head()
        facts = {"place": shown(progress.place), "state": progress.state.hex()}
        facts |= {"head": head.hex(), **more}
        made: dict[bytes, bytes] = {}
        for before in {self._members[name] for name in names}:
            lines = frames(self._journal.after(before))
            made[before] = self._wire.sign(phase, facts, lines, number=max(0, progress.number))
        sent = [Message(name, made[self._members[name]]) for name in names]
        self._before |= {name: self._members[name] for name in names}
        self._members |= dict.fromkeys(names, head)
        return sent

    def _pump(self) -> list[Message]:
        """Go on with the sums as far as they go."""
        attempt = self._attempt
        assert attempt is not None
        sent = attempt.advance(self._now)
        if not attempt.over:
            self._until = attempt.until
            return sent
        self._silent |= attempt.silent
        for refusal in attempt.left_out:
            self._note(refusal)
        return [*sent, *self._summed()]

    def _summed(self) -> list[Message]:
        """All sums are opened, or have failed."""
        attempt = self._attempt
        assert attempt is not None
        if not attempt.opened:
            return self._again(attempt)
        for part in attempt.opened:
            one, missed = attempt.sums[part], attempt.missed[part]
            facts = sum_facts(one, attempt.call.number, missed)
            self._journal.write("sum", facts, attempt.evidence(part))
        if len(attempt.sums) > 1:
            self._progress.asked = set()
            self._wait(Stage.PARTS, self._deadlines.answer)
            return self._send_parts() if self.plan.by_authority else self._ask_parts()
        one = attempt.sums[0]
        claims = {name: Claim(said.state, Place(*said.place)) for name, said in one.applied.items()}
        return self._reached(claims, one.signed)

    def _again(self, attempt: Attempt) -> list[Message]:
        """Try the round again without those who made it fail, where nothing can be open."""
        progress, error = self._progress, attempt.error(next(iter(attempt.failed)))
        without, closed = progress.without | attempt.blamed(), not attempt.opening
        worth = len(without) > len(progress.without) and progress.attempt < ATTEMPTS
        if not worth or not (closed or self.plan.protection == "plain"):
            raise error
        for name in sorted(without - progress.without):
            word = f"attempt {progress.attempt}"
            self._note(Refusal(name, word, reason_of(error), 0, by=self.name))
        progress.without, progress.attempt = without, progress.attempt + 1
        self.hindrance = error
        try:
            return self._next(final=True)
        except RoundRefusedError:
            raise error from None

    def _ask_parts(self) -> list[Message]:
        """Ask one more applier of each group whose opened sum has not come."""
        attempt, progress, sent = self._attempt, self._progress, list[Message]()
        assert attempt is not None
        missing = [part for part in attempt.opened if part not in progress.parts]
        if not missing:
            return self._send_parts()
        for part in missing:
            names = list(attempt.sums[part].signed)
            if self._now < self._until and set(names) & progress.asked - attempt.gone.keys():
                continue
            left = [name for name in names if name not in progress.asked | attempt.gone.keys()]
            if not left:
                attempt.failed[part] = silent_group(part)
                continue
            progress.asked.add(left[0])
            facts = {"place": shown(progress.place), "part": part}
            data = self._wire.sign(Phase.GIVE, facts, number=attempt.call.number)
            sent.append(Message(left[0], data))
        if not sent and not attempt.opened:
            return self._again(attempt)
        if self._now >= self._until:
            self._wait(Stage.PARTS, self._deadlines.answer)
        return sent or self._send_parts_if_whole()

    def _send_parts_if_whole(self) -> list[Message]:
        attempt = self._attempt
        assert attempt is not None
        return self._send_parts() if set(attempt.opened) <= set(self._progress.parts) else []

    def _send_parts(self) -> list[Message]:
        """Everybody who holds the models gets the sums of all groups."""
        attempt, progress, plan = self._attempt, self._progress, self.plan
        assert attempt is not None
        parts = list(attempt.opened)
        words = [reason_of(attempt.error(part)) for part in attempt.failed]
        body = frames([progress.parts.get(part, b"") for part in parts])
        facts = {"parts": parts, "left_out": words}
        data = self._wire.sign(Phase.PARTS, facts, body, number=attempt.call.number)
        progress.asked = {plan.authority} if plan.by_authority else attempt.present
        self._wait(Stage.RESULTS, self._deadlines.answer)
        return [Message(name, data) for name in sorted(progress.asked)]

    def _end_results(self) -> list[Message]:
        progress, attempt = self._progress, self._attempt
        assert attempt is not None
        claims = {name: claim for name, (claim, _) in progress.results.items()}
        signed = {name: data for name, (_, data) in progress.results.items()}
        body, number = frames(list(signed.values())), attempt.call.number
        told = self._wire.sign(Phase.RESULTS, {}, body, number=number)
        names = () if self.plan.by_authority else signed
        return [*(Message(name, told) for name in names), *self._reached(claims, signed)]

    def _reached(self, claims: Mapping[str, Claim], signed: Mapping[str, bytes]) -> list[Message]:
        """The program has come to the place that most appliers signed."""
        progress, attempt, claim = self._progress, self._attempt, majority(claims)
        assert attempt is not None
        if claim is None or claim.place <= progress.place:
            problem = "appliers signed different states, or none that goes on"
            remedy = "compare their software: equal sums must give equal states"
            raise RoundRefusedError(
                RoundReason.FORKED, problem, field="claims", value=len(claims), remedy=remedy
            )
        same = {name: signed[name] for name, found in claims.items() if found == claim}
        for name in claims.keys() - same.keys():
            self._note(self.refusals.note(name, "apply", str(RoundReason.FORKED)))
        self._states.reached(claim, attempt.call, same)
        progress.place, progress.state = claim.place, claim.state
        progress.attempt, progress.without, self.hindrance = 1, frozenset(), None
        facts = {"place": shown(claim.place), "digest": claim.state.hex(), "checkpoint": None}
        self._journal.write("state", facts, list(same.values()))
        early = self._states.sealed and self.plan.by_authority
        names = [name for name in self._members if name != self.plan.authority] if early else []
        message = self._states.message() if names else b""
        self._publish()
        asked = self._ask_state() if self._reader is not None and not early else []
        return [*(Message(name, message) for name in names), *asked, *self._next()]

    def _ask_state(self) -> list[Message]:
        """Ask one who came to it for the state that others wait for."""
        holders = [name for name in self._states.signed if name in self._members]
        asked = self._states.request(holders, self._now + self._deadlines.answer)
        return [] if asked is None else [Message(*asked)]

    def _publish(self) -> None:
        claim, sealed = self._states.claim, self._states.sealed
        if self._reader is not None and claim is not None and sealed:
            secret = self._reader.secret
            self.models = open_state(self.plan, secret, sealed, claim.place, claim.state)

    def _finish(self, error: SecureFLError | None = None) -> list[Message]:
        self.failed = None if error is None else forgetful(error)
        self.stage, self._attempt = Stage.OVER, None
        word = "" if error is None else str(getattr(error, "reason", error.code))
        self._journal.write("end", {"reason": word or "done", "files": {}}, [])
        return self._end(list(self._members))

    def _end(self, names: Sequence[str]) -> list[Message]:
        word = "" if self.failed is None else str(getattr(self.failed, "reason", self.failed.code))
        return self._announce(Phase.END, names, {"reason": word})

    # Throughout

    def _go(self, work: Callable[[], list[Message]]) -> list[Message]:
        """What cannot go on ends the federation for everybody, with its reason."""
        try:
            return work()
        except SecureSumError as error:
            return self._finish(error)

    def _missing(self) -> set[str]:
        """Who has said neither that it takes part nor that it does not, or has fallen silent."""
        everybody = {*self.plan.clients, *([self.plan.authority] if self.plan.by_authority else [])}
        return (everybody - self._members.keys() - self._declined) | self._silent

    def _wait(self, stage: Stage, seconds: float) -> None:
        self.stage, self._until = stage, self._now + seconds

    def _remember(self, sent: list[Message]) -> list[Message]:
        for message in sent:
            phase = route(message.data).phase
            if phase not in _APART | ({Phase.GIVE} if self.stage != Stage.PARTS else set()):
                self._told[message.to] = message.data
            if phase in (Phase.BEGIN, Phase.END):
                self._called[message.to] = bytes(message.data)
        return sent

    def _note(self, refusal: Refusal) -> None:
        if len(self.refusals.first) < _MOST_NOTED and not self.over:  # the end is the last line
            number = self._progress.number if self._attempt is not None else None
            self._journal.write("refused", refused_facts(refusal, number), [])
