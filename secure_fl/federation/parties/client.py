"""A client of a federation: its examples, its ledger and gate, its replica of the models.

    HELLO → PLAN → JOIN; then a round after the other, as the server calls them; END

While one runs, the set-up of the next may go on (`ahead`).

Guarantee: the plan is accepted once, after the site's own judgement; no shape, bound, threshold or
place is ever taken from the server, and no round is answered twice. What is refused gives a signed
reason, or silence where the message may be anybody's. The gate admits what an answer releases
before the client takes part. Nothing but a client's own messages leaves its object.
Assumes: the roster is the coordinator's; `prepare` makes what the plan says.
Not covered: what a server does with its power to leave clients out or to end the federation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.strict_json import from_hex
from secure_fl.errors import FileError, SecureFLError
from secure_fl.federation.parties.calling import Call, cohort_names
from secure_fl.federation.parties.claims import check_claimed
from secure_fl.federation.parties.client_progress import ClientProgress
from secure_fl.federation.parties.client_round import ClientRound, Seat, forked
from secure_fl.federation.parties.keyring import Keyring
from secure_fl.federation.parties.participant import Participant
from secure_fl.federation.parties.party import ANYBODYS, reason_of, typed_files
from secure_fl.federation.parties.replica import Replica
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Answers, Program
from secure_fl.federation.state import State
from secure_fl.federation.wire import Post, route, shown
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.messages import RoundRefusedError
from secure_fl.secure_sum.store import MemoryStore, RoundStore


@dataclass(frozen=True)
class Site:
    """What a client brings along of its own; nobody else's word takes the place of any of it.

    Attributes:
        prepare: makes the program and this client's answers of a plan.
        judge: why this site does not take part in a plan, None where it does.
        admit: records what an answer will release, or raises `PrivacyError` beyond the budget.
        follow: takes the transcript's next lines and gives its head, 32 bytes; raises where they
            do not continue what was there. Without lines it gives the head that there is.
    """

    prepare: Callable[[Plan], tuple[Program, Answers]]
    judge: Callable[[Plan], str | None] = lambda _: None
    admit: Callable[[Sequence[Release]], None] = lambda _: None
    follow: Callable[[Sequence[bytes]], bytes] = lambda _: bytes(32)
    held: Callable[[Plan], State | None] = lambda _: None


class FederationClient(Participant):
    """One client, as a party.

    Args:
        identity: of role `client`.
        roster: in force.
        site: what it brings along.
        store: what outlives its process.
        shared: what parties of one process share; one to itself where it has a process of its own.
        randomness: uniform secret bytes.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        site: Site,
        *,
        store: RoundStore | None = None,
        shared: Shared | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        super().__init__(identity, roster)
        self._site, self._randomness = site, randomness
        self._store, self._shared = store or MemoryStore(), shared or Shared()
        self._seat: Seat | None = None
        self._progress = ClientProgress(site.follow(()))

    @property
    def state(self) -> State | None:
        """The models, once there is a plan."""
        return None if self._seat is None else self._seat.replica.state

    @property
    def over(self) -> bool:
        """Whether the federation has ended, and this client has its last state."""
        return self._progress.over

    def _take(self, data: bytes | memoryview) -> Sequence[bytes | memoryview]:
        header = route(data)
        if header.phase == Phase.PLAN:
            return self._on_plan(data)
        seat = self._seated()
        if header.phase in (Phase.KEYS, Phase.SECRET):
            ring, grant = seat.keyring, header.phase == Phase.KEYS
            (ring.take_grant if grant else ring.take_secret)(bytes(data))
            return []
        if header.phase < Phase.HELLO:
            return self._running(header.round).receive(bytes(data))
        most = seat.plan.most(header.phase)
        post = self._wire.open(data, most=most, role="server", sender=seat.plan.server)
        takes: dict[Phase, Callable[[Post], Sequence[bytes | memoryview]]] = {
            Phase.MAKE: self._on_make,
            Phase.BEGIN: self._on_call,
            Phase.END: self._on_call,
            Phase.GIVE: self._on_give,
            Phase.PARTS: self._on_parts,
            Phase.RESULTS: self._on_results,
            Phase.STATE: self._on_state,
            Phase.PREPARE: lambda post: self._on_prepare(post, bytes(data)),
        }
        if header.phase not in takes:
            word = header.phase.name
            raise RefusedError(Reason.WRONG_PHASE, "not for a client", "phase", word, "send it on")
        return takes[header.phase](post)

    def _refuse(self, data: bytes | memoryview, error: SecureFLError) -> list[bytes]:
        refusal = self.refusals.add(data, error)
        return [] if refusal.reason in ANYBODYS else [self._refusal(data, error)]

    def _refusal(self, data: bytes | memoryview, error: SecureFLError) -> bytes:
        """What is refused and why, signed; of a plan the words of whoever judged it as well."""
        header, late = route(data), self._progress.late
        plan = header.parameters if header.phase == Phase.PLAN else self._wire.plan
        number = header.round
        if late is not None and header.phase == Phase.STATE:
            number = late.header.round  # the call that waited for it is what is not answered
        facts = {
            "plan": plan[:64],
            "about": header.phase.name.lower(),
            "reason": reason_of(error),
            "problem": error.problem[:400] if header.phase == Phase.PLAN else "",
            "blamed": sorted(set(getattr(error, "blamed", ()))),
        }
        return self._wire.sign(Phase.REFUSE, facts, number=number)

    # Joining

    def _on_plan(self, data: bytes | memoryview) -> list[bytes]:
        signed = bytes(data)
        plan = self._shared.plan(signed, lambda: Plan.open(signed, self._wire.roster))
        if self._seat is None:
            self._accept(plan)
            self._signed = signed
        seat = self._seated()
        if plan.digest != seat.plan.digest:
            found, remedy = plan.digest.hex()[:16], "compare plans: this server shows two"
            raise RefusedError(Reason.OTHER_PLAN, "another was agreed to", "plan", found, remedy)
        state, self._due = seat.replica.state, None
        head, digest = self._progress.head.hex(), state.digest.hex()
        facts = {"place": shown(state.place), "state": digest, "head": head}
        return [self._wire.sign(Phase.JOIN, facts)]

    def _accept(self, plan: Plan) -> None:
        if self.name not in plan.clients or plan.server != self._server:
            raise RefusedError(Reason.UNKNOWN_CLIENT, "not in this plan", "plan", self.name, "join")
        if (objection := self._site.judge(plan)) is not None:
            found, remedy = plan.digest.hex()[:16], "change the plan, or this site's policy"
            raise RefusedError(Reason.AGAINST_POLICY, objection, "plan", found, remedy)
        self._sit(plan)

    def _sit(self, plan: Plan) -> None:
        program, answers = self._site.prepare(plan)
        replica = Replica(plan, program, self._shared, self._site.held(plan))
        self._wire.plan = plan.digest.hex()
        keyring = Keyring(self._wire, plan, self._shared, self._randomness)
        seat = (self._wire, plan, replica, answers, keyring)
        more = (self._store, self._shared, self._randomness)
        self._seat = Seat(*seat, *more, keep=self._keep, history=lambda: self._progress.head)

    def _on_make(self, post: Post) -> list[bytes]:
        grant, secret = bool(post.facts["grant"]), bool(post.facts["secret"])
        return self._seated().keyring.make(post.header.round, grant=grant, secret=secret)

    # Rounds

    def _on_call(self, post: Post) -> Sequence[bytes | memoryview]:
        """A round is called, or the federation ends."""
        seat, progress, place = self._seated(), self._progress, post.place
        if progress.over and post.header.phase == Phase.BEGIN:  # another plan may go on from here
            raise RefusedError(Reason.OLDER_PLACE, "has ended", "place", shown(place), "end")
        digest = from_hex(post.facts["state"], "state", 32)
        if (last := (post.header.round, post.header.body_hash)) == progress.last:
            return self._again(post)
        self._settle(place, digest)
        own = seat.replica.state
        if place < own.place:
            raise RefusedError(Reason.OLDER_PLACE, "is over", "place", shown(place), "go on")
        progress.last, progress.head = last, self._followed(unframe(post.rest))
        if progress.head.hex() != post.facts["head"]:
            raise forked("not the transcript that this client follows", post.header.round)
        if self._for_nothing(post):
            progress.over = True
            return []
        if place > own.place:
            progress.late = post
            return [self._wire.sign(Phase.WANT, {"place": shown(place)})]
        if digest != own.digest:
            raise forked("the server says another state of this place", shown(place))
        return self._begin(post)

    def _for_nothing(self, post: Post) -> bool:
        """Whether it ends before any round was called here, for one that was let in to go on from
        others: it has no models of theirs, and needs none.
        """
        seat, unbegun = self._seated(), self._progress.begun is None
        newcomer = seat.replica.place < post.place == seat.plan.begins
        return post.header.phase == Phase.END and unbegun and newcomer

    def _followed(self, lines: Sequence[bytes]) -> bytes:
        """The transcript's head after these lines. Who could not write the lines before them has a
        gap, which is no fork: it says so by where it is when it joins again.
        """
        progress = self._progress
        try:
            with typed_files():
                head = self._site.follow(lines)
        except FileError:
            progress.gap = True
            raise
        except RoundRefusedError:
            if not progress.gap:
                raise
            problem, remedy = "lines before these could not be written", "make room, and wait"
            raise FileError(problem, "transcript", len(lines), remedy) from None
        progress.gap = False
        return head

    def _again(self, post: Post) -> Sequence[bytes | memoryview]:
        """The same call once more, as after a kill: the same bytes, or nothing. One that waited for
        the state of its place begins once that is reached; one that was refused is refused again.
        """
        progress, place = self._progress, post.place
        if progress.over and self._for_nothing(post):
            return []
        running, begun, at = progress.round, progress.begun, self._seated().replica.place
        if running is not None and running.call.number == post.header.round:
            return running.again()
        new = begun is None or begun.number < post.header.round
        waits = not progress.over if post.header.phase == Phase.END else new
        if place < at or not (waits or place > at):
            reason = Reason.REPLAYED if place < at or progress.over else Reason.NO_ANSWER
            raise RefusedError(reason, "called already", "round", post.header.round, "wait")
        progress.late, want = post, {"place": shown(place)}
        return self._begin_late() if place == at else [self._wire.sign(Phase.WANT, want)]

    def _begin(self, post: Post) -> Sequence[bytes | memoryview]:
        """Take part in the round that is called, at this client's place."""
        if post.header.phase == Phase.END:
            self._progress.over = True
            return []
        seat, place = self._seated(), post.place
        if seat.replica.program.done(place):
            raise RefusedError(Reason.OLDER_PLACE, "the last", "place", shown(place), "end")
        key, left_out = seat.keyring.fingerprint, post.names("left_out")
        fingerprint = key if seat.plan.parameters is not None else bytes(32)
        facts = {"number": post.header.round, "attempt": post.facts["attempt"]}
        more = {"place": shown(place), "left_out": list(left_out), "key": fingerprint.hex()}
        call = Call.read(facts | more)
        self._check_new(call)
        form = seat.replica.program.form(place)
        plans = seat.plans(call, form)
        if self.name not in cohort_names(seat.plan, form) or self.name in left_out:
            raise RefusedError(Reason.UNKNOWN_CLIENT, "not asked", "cohort", self.name, "wait")
        position = form.cohort.index(seat.plan.clients.index(self.name))
        prepared = self._progress.ahead.begin(call)
        self._progress.begun, self._progress.round = call, None
        try:
            self._site.admit(seat.answers.releases(seat.replica.state, position))
        except SecureFLError:
            if prepared is not None:
                prepared.leave()
            raise
        self._progress.round = prepared or ClientRound(seat, call, form, plans)
        return self._progress.round.begin()

    def _on_prepare(self, post: Post, data: bytes) -> Sequence[bytes | memoryview]:
        """The set-up of a round to come is proposed."""
        progress, seat = self._progress, self._seated()
        if progress.late is not None:  # the call that came before it begins first
            progress.ahead.held = data
            return []
        if progress.round is not None and progress.round.call.number == post.header.round:
            raise RefusedError(Reason.REPLAYED, "it runs", "round", post.header.round, "wait")
        return progress.ahead.prepare(seat, post, progress.begun)

    def _check_new(self, call: Call) -> None:
        """Refuse a number that was called before, and a place that was called so often."""
        before = self._progress.begun
        if before is None:
            return
        again = call.place == before.place and call.attempt <= before.attempt
        if call.number <= before.number or again:
            value = (call.number, *shown(call.place), call.attempt)
            raise RefusedError(
                Reason.REPEATED, "not newer than the last", "round, place, attempt", value, "go on"
            )

    def _on_give(self, post: Post) -> list[bytes]:
        """The sealed state of this client's place, or its group's opened sum. Also the state that
        it came to itself and has not heard the others' word of: who gets it asks for that.
        """
        seat = self._seated()
        if post.facts["part"] >= 0:
            return [self._running(post.header.round).part(post.facts["part"])]
        self._agree_by(post.place)
        running = self._progress.round
        after = None if running is None else running.next
        known = [seat.replica.state, *([] if after is None else [after])]
        state = next((each for each in known if each.place == post.place), None)
        if state is None or not seat.keyring.secret:
            value = shown(post.place)
            raise RefusedError(Reason.NO_KEY, "cannot seal it", "place", value, "ask another")
        return [seat.replica.sealed(self._wire, seat.keyring.secret, state)]

    def _on_parts(self, post: Post) -> list[bytes]:
        return [self._running(post.header.round).take_parts(post)]

    def _on_results(self, post: Post) -> list[bytes]:
        self._running(post.header.round).take_results(post)
        return []

    # The replica

    def _settle(self, place: Place, digest: bytes) -> None:
        """Go on to the state that this client came to itself, once it is the one of this place, and
        enough others were heard to come to it. Else it asks for the state and their signatures: it
        may have been sent other sums than everybody else.
        """
        running = self._progress.round
        if running is None or running.next is None or not running.agreed:
            return
        after = running.next
        if after.place == place and after.digest != digest:
            raise forked("the server says another state than the appliers", shown(place))
        if after.place == place:
            self._seated().replica.state = after
            self._progress.round = None

    def _agree_by(self, place: Place) -> None:
        running = self._progress.round
        if running is not None and running.agreed and running.next is not None:
            self._settle(place, running.next.digest)

    def _on_state(self, post: Post) -> Sequence[bytes | memoryview]:
        """A sealed state, with the signatures of those who came to it."""
        seat = self._seated()
        self._agree_by(post.place)
        if post.place <= seat.replica.place:
            return self._begin_late()
        claim = check_claimed(self._wire, seat.plan, seat.replica.program, post)
        try:
            sealed = unframe(post.rest)[0]
            seat.replica.take(seat.keyring.secret, sealed, claim.place, claim.state)
        except RefusedError as error:  # it is not the server's doing: another holder is asked
            problem, remedy = "whoever sealed it did not seal that state", "ask another for it"
            raise RefusedError(Reason.WRONG_KEY, problem, "state", error.field, remedy) from None
        return self._begin_late()

    def _begin_late(self) -> Sequence[bytes | memoryview]:
        """Go on with the call that waited for the state of its place, once that is reached."""
        progress, state = self._progress, self._seated().replica.state
        if (late := progress.late) is None or late.place != state.place:
            return []
        if late.facts["state"] != state.digest.hex():
            raise forked("the server says another state of this place", shown(state.place))
        sent = self._begin(late)
        held, progress.ahead.held, progress.late = progress.ahead.held, b"", None
        return [*sent, *(each.data for each in (self.receive(held) if held else ()))]

    def _seated(self) -> Seat:
        if self._seat is None:
            remedy = "send the plan"
            raise RefusedError(Reason.STALE, "no plan was agreed to", "plan", self.name, remedy)
        return self._seat

    def _running(self, number: int) -> ClientRound:
        running, ahead = self._progress.round, self._progress.ahead.round
        if ahead is not None and ahead.call.number == number:
            return ahead
        if running is None or running.call.number != number:
            older = running is not None and number < running.call.number
            reason = Reason.STALE if older else Reason.FUTURE
            raise RefusedError(reason, "not the running round", "round", number, "wait")
        return running
