"""How a server goes from round to round: whom it calls, what it waits for, when it tries again.
Every function gives the messages that are to be sent; `FederationServer` takes in the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from secure_fl.crypto.envelope import Phase
from secure_fl.errors import SecureFLError, SecureSumError
from secure_fl.federation.parties.attempt import Attempt, forgetful, silent_group
from secure_fl.federation.parties.calling import ATTEMPTS, Call, cohort_names, round_plans
from secure_fl.federation.parties.claims import Claim, enough, majority
from secure_fl.federation.parties.party import Message, failure_word, reason_of
from secure_fl.federation.parties.replica import open_state
from secure_fl.federation.parties.server_base import ServerBase
from secure_fl.federation.parties.server_record import Stage, call_facts, refused_facts, sum_facts
from secure_fl.federation.place import Place
from secure_fl.federation.wire import route, shown
from secure_fl.secure_sum.block_codec import server_cipher
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError
from secure_fl.secure_sum.steps import Refusal

_MOST_NOTED = 64
_APART = frozenset({Phase.PLAN, Phase.KEYS, Phase.SECRET, Phase.STATE})
"""What is sent again for other reasons than a kill."""


class ServerFlow(ServerBase):
    """The deciding half of `FederationServer`; made as that is."""

    # What happens next

    def _next(self, *, final: bool = False) -> list[Message]:
        """Call the next round, make the keys that it needs, or end. Too few members are waited for
        once; where the wait is `final` the federation ends.
        """
        progress = self._progress
        if self._schedule.done(progress.place):
            return self._finish()
        prepared = self._prepared()
        number = self._following if prepared is None else prepared.call.number
        if any(self._keys.missing(number).values()):
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
        there = self._members.keys() - self._revoked
        makers = [name for name in self.plan.key_makers if name in there]
        asked = self._keys.ask(makers, self._following)
        if asked is None:
            problem, remedy = "nobody makes keys", "begin again when clients can be reached"
            raise RoundRefusedError(RoundReason.TOO_FEW, problem, "makers", len(makers), remedy)
        self._wait(Stage.KEYS, self._deadlines.answer)
        return [Message(*asked)]

    def _call(self) -> list[Message]:
        """Call those of the cohort who are there to the next round, and prepare the one after."""
        plan, progress, attempt = self.plan, self._progress, self._prepared()
        prepared = attempt is not None
        if attempt is None:
            progress.vain = progress.vain if self._ahead is None else self._ahead.call.number
            tried = progress.attempt, progress.without
            attempt = self._made(self._coming(self._following, progress.place, *tried))
        call, self._attempt, self._ahead = attempt.call, attempt, None
        progress.number, progress.used = call.number, max(progress.used, call.number)
        progress.parts, progress.sealers, progress.doubts = {}, {}, {}
        progress.results, self._called = {}, {}
        for name, told in self._told.items():  # of what was prepared it may be wanted again
            of = [one for one in told if prepared and one[0] == call.number]
            self._told[name] = {one: told[one] for one in of}
        attempt.begin(self._now)
        for one in attempt.plans:
            self._journal.write("round", call_facts(one, call, attempt.form), [])
        self._wait(Stage.SUM, attempt.until - self._now)
        asked = [*attempt.cohort, *([plan.authority] if plan.by_authority else [])]
        facts = {"attempt": call.attempt, "left_out": list(call.left_out)}
        return [*self._announce(Phase.BEGIN, asked, facts), *self._prepare()]

    def _coming(
        self, number: int, place: Place, attempt: int = 1, without: frozenset[str] = frozenset()
    ) -> Call:
        """A call of those of a cohort who are there."""
        cohort = set(cohort_names(self.plan, self._schedule.form(place)))
        absent = cohort & (self._silent.keys() | without | self._revoked)
        absent |= cohort - self._members.keys()
        return Call(number, place, attempt, tuple(sorted(absent)), self._keys.fingerprint)

    def _made(self, call: Call) -> Attempt:
        """The sums of a call."""
        form, before = self._schedule.form(call.place), self._attempt
        plans = round_plans(self.plan, self._wire.roster, form, call)
        if self._cipher is None or before is None or before.call.key != call.key:
            self._cipher = server_cipher(plans[0])
        more = (self._wire.identity, self._cipher, self._deadlines, self._now, self._journals)
        made = Attempt(call, form, plans, *more)
        made.revoked = self._revoked
        return made

    def _prepared(self) -> Attempt | None:
        """What was prepared, if it is what would be called now and nobody refused it."""
        ahead, progress = self._ahead, self._progress
        if ahead is None or ahead.failed or ahead.gone:
            return None
        tried = progress.attempt, progress.without
        coming = self._coming(ahead.call.number, progress.place, *tried)
        return ahead if ahead.call == coming else None

    def _prepare(self) -> list[Message]:
        """Begin the set-up of the round after the one that runs, where it is known and has one. Not
        where the program ends there, or the key changes, or too few are there.
        """
        number, place = self._following, self._schedule.following(self._progress.place)
        known = not self._schedule.done(place) and not any(self._keys.missing(number).values())
        if not known or self.plan.protection == "plain":
            return []
        try:
            self._ahead = self._made(self._coming(number, place))
        except RoundRefusedError:
            return []
        self._progress.used = number
        return self._propose(self._ahead)

    def _propose(self, ahead: Attempt) -> list[Message]:
        """Ask for keys those who have not sent any."""
        call = ahead.call
        facts = {"place": shown(call.place), "left_out": list(call.left_out)}
        data = self._wire.sign(Phase.PREPARE, facts, number=call.number)
        return [Message(name, data) for name in sorted(ahead.keyless)]

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
        self._silent |= dict.fromkeys(attempt.silent, attempt.call.number)
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
            if self._now < self._until and set(names) & progress.asked - attempt.away:
                continue
            left = [name for name in names if name not in progress.asked | attempt.away]
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
        whole = not sent and set(attempt.opened) <= set(progress.parts)
        return self._send_parts() if whole else sent

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
        if self._doubted(attempt):
            return self._ask_parts()
        claims = {name: claim for name, (claim, _) in progress.results.items()}
        signed = {name: data for name, (_, data) in progress.results.items()}
        body, number = frames(list(signed.values())), attempt.call.number
        told = self._wire.sign(Phase.RESULTS, {}, body, number=number)
        names = () if self.plan.by_authority else signed
        return [*(Message(name, told) for name in names), *self._reached(claims, signed)]

    def _doubted(self, attempt: Attempt) -> bool:
        """Whether too few took the sums of all groups, as some did not open: the server cannot look
        into a box, so another applier of the group is asked. Each is asked once.
        """
        progress, blamed = self._progress, set[str]().union(*self._progress.doubts.values())
        doubted = {part: name for part, name in progress.sealers.items() if name in blamed}
        few = len(progress.results) < enough(self.plan, attempt.form)
        if few and doubted:
            for part, name in doubted.items():
                self._note(self.refusals.note(name, "part", str(RoundReason.NOT_AGREED)))
                attempt.leave(name, str(RoundReason.NOT_AGREED), [])
                del progress.parts[part], progress.sealers[part]
            progress.asked, progress.results = set(progress.sealers.values()), {}
            self._wait(Stage.PARTS, self._deadlines.answer)
        else:
            for name in progress.doubts:
                attempt.leave(name, str(RoundReason.NOT_AGREED), [])
        progress.doubts = {}
        return few and bool(doubted)

    def _reached(self, claims: Mapping[str, Claim], signed: Mapping[str, bytes]) -> list[Message]:
        """The program has come to the place that most appliers signed."""
        progress, attempt, claim = self._progress, self._attempt, majority(claims)
        assert attempt is not None
        if claim is None or claim.place <= progress.place:
            problem = "appliers signed different states, or none that goes on"
            remedy = "compare their software: equal sums must give equal states"
            raise RoundRefusedError(RoundReason.FORKED, problem, "claims", len(claims), remedy)
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
        goes = self._finish if self._closes else self._next
        return [*(Message(name, message) for name in names), *asked, *goes()]

    def _ask_state(self) -> list[Message]:
        """Ask one who came to it for the state that others wait for."""
        there = self._members.keys() - self._revoked
        holders = [name for name in self._states.signed if name in there]
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
        reason = failure_word(error) or "done"
        self._journal.write("end", {"reason": reason, "files": {}}, [])
        return self._end(list(self._members))

    def _end(self, names: Sequence[str]) -> list[Message]:
        return self._announce(Phase.END, names, {"reason": failure_word(self.failed)})

    # Who is waited for

    @property
    def waits(self) -> dict[str, frozenset[str]]:
        """Who is waited for, by the phase of what they are to send."""
        attempt, asked = self._attempt, frozenset(self._progress.asked) - self._revoked
        found = dict[str, frozenset[str]]()
        if self.stage == Stage.JOIN:
            found["join"] = frozenset(self._missing())
        elif self.stage == Stage.KEYS:
            found["keys"] = frozenset({self._keys.maker})
        elif self.stage == Stage.SUM and attempt is not None:
            found |= attempt.waits
        elif self.stage == Stage.PARTS and attempt is not None:
            found["part"] = asked - set(self._progress.sealers.values()) - attempt.away
        elif self.stage == Stage.RESULTS:
            found["result"] = asked
        if self._states.until is not None:
            found["state"] = frozenset({self._states.asked[0]})
        return found

    def _go_without(self, revoked: frozenset[str]) -> list[Message]:
        """Wait no more for whose site was revoked; what is complete without them goes on, and for
        all others it is waited as before.
        """
        self._mark_revoked(revoked)
        goes: dict[Stage, Callable[[], list[Message]]] = {
            Stage.JOIN: lambda: [] if self._missing() else self._next(),
            Stage.KEYS: lambda: self._make_keys() if self._keys.maker in revoked else [],
            Stage.SUM: self._pump,
            Stage.PARTS: self._ask_parts,
            Stage.RESULTS: lambda: [] if self._progress.asked - revoked else self._end_results(),
            Stage.OVER: list,
        }
        asked = self._states.until is not None and self._states.asked[0] in revoked
        return [*(self._ask_state() if asked else []), *self._go(goes[self.stage])]

    def _mark_revoked(self, revoked: frozenset[str]) -> None:
        self._revoked = revoked
        for one in filter(None, (self._attempt, self._ahead)):
            one.revoked = revoked

    # Throughout

    def _go(self, work: Callable[[], list[Message]]) -> list[Message]:
        """What cannot go on ends the federation for everybody, with its reason."""
        try:
            return work()
        except SecureSumError as error:
            return self._finish(error)

    def _missing(self) -> set[str]:
        """Who has said neither that it takes part nor that it does not, or has fallen silent, and
        may still come.
        """
        everybody = {*self.plan.clients, *([self.plan.authority] if self.plan.by_authority else [])}
        unheard = everybody - self._members.keys() - self._declined
        return (unheard | self._silent.keys()) - self._revoked

    def _wait(self, stage: Stage, seconds: float) -> None:
        self.stage, self._until = stage, self._now + seconds

    def _remember(self, sent: list[Message]) -> list[Message]:
        for message in sent:
            header = route(message.data)
            if header.phase in (Phase.BEGIN, Phase.END):
                self._called[message.to] = bytes(message.data)
            elif header.phase not in _APART and (
                self.stage == Stage.PARTS or header.phase != Phase.GIVE
            ):
                told, of = self._told.setdefault(message.to, {}), (header.round, header.parameters)
                told.pop(of, None)  # what was told last comes last
                told[of] = message.data
        return sent

    def _note(self, refusal: Refusal) -> None:
        if len(self.refusals.first) < _MOST_NOTED and not self.over:  # the end is the last line
            number = self._progress.number if self._attempt is not None else None
            self._journal.write("refused", refused_facts(refusal, number), [])
