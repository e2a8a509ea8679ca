"""A client's set-up of the round to come, which rides on the messages of the one that runs.

    round r       UPLOAD      AGREE    COUNTS   POOLS       APPLY
    round r + 1   ADVERTISE   SHARE    SETTLE   who stays

So from the second round on a server waits for clients five times: for uploads, agreements, shares
that open the counts, shares that open the pools, and claims of what follows. (A round that nobody
prepared has three waits more; sums over groups have two more, in which groups tell each other.)

`PREPARE` names number, place and who is left out; a client computes the rest as it does of a call:
from the plan, the place and its own key. It goes into nothing but a round whose place the program
comes to, whose number is unused, and whose cohort it is in. Where `BEGIN` names that very call, the
round goes on from there. Where it names another, what was prepared is thrown away, and its number
with it.

**Guarantee.** As without riding, for each of both rounds: a set-up depends on nothing that a round
opens, and its secrets are drawn for one number and one plan, so whoever sees both rounds has what
two rounds side by side would have shown.

- A stale or replayed advertisement, list or box: headers are signed and name the round and the
  digest of its plan, which holds cohort, thresholds, shape, question and call; boxes, seeds and
  commitments are bound to both too. Nothing of one round passes in another. Within a round a
  client's keys are drawn once, a list without them is refused, and so is a second list.
- Different lists, dealers or sets for different clients: they make different views, and a client
  reveals something only for a view that t of the holders of each client's shares signed, with the
  thresholds of the plan, not of the list.
- Another cohort, place, attempt or key than was prepared: another call, so nothing that was
  prepared is accepted there. A client throws its secrets away, answers nothing more for that
  number, and begins no other round under it. It has at most one round prepared: a server gains
  nothing by asking for many.
- A proposal that does not fit is refused with a signed reason; the running round goes on.
- A kill in between: number, keys and answers of either round are kept before they are sent, apart
  from each other (`FolderStore`); the next life has the same or nothing.
- An opening of the round ahead: a client gives its vector only when the round begins, and signs and
  reveals nothing for a round without having uploaded.
- A release: the site's gate is asked when the round begins, never before.
- Shares of one round are asked for, and given, under its number alone; the two kinds of one
  client's secrets exclude each other in each round, and are independent between rounds.
- Two sums of the same answers: the question of a round names the plan and the place, alike in all
  attempts, prepared or not, so the store lets a client help to open one of them.

**Assumes.** What `RoundClient` does. A client begins the next round only after the claims of the
one before were compared, or t appliers signed the state that it is given.
**Not covered.** Secrets of the next round exist while this one ends: whoever breaks into a client
then has them as well, as if it came an exchange later without riding. Who falls silent in between
is missed at its upload only, after the time that training may take. A server that leaves somebody
out of the next round may let that depend on what it saw of this one, as without riding.
"""

from __future__ import annotations

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.federation.parties.calling import Call, cohort_names
from secure_fl.federation.parties.client_round import ClientRound, Seat
from secure_fl.federation.place import Place
from secure_fl.federation.wire import Post, shown
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError


class RoundAhead:
    """The round that a client has prepared, if any.

    Attributes:
        round: its set-up.
        used: the last number that one was begun for.
        held: a proposal that came before its client had the state of the running round.
    """

    def __init__(self) -> None:
        self.round: ClientRound | None = None
        self.used, self.held = -1, b""

    @property
    def call(self) -> Call | None:
        """What is prepared."""
        return None if self.round is None else self.round.call

    def prepare(self, seat: Seat, post: Post, begun: Call | None) -> list[bytes | memoryview]:
        """Begin the set-up that a server proposes; what is to be sent for it. Raises RefusedError,
        RoundRefusedError: it does not fit; nothing has changed.

        Args:
            seat: the client's.
            post: the proposal.
            begun: the last call that it took.
        """
        call = _proposed(seat, post)
        if self.round is not None and self.round.call == call:
            return self.round.prepare()
        last = self.used if begun is None else max(self.used, begun.number)
        if call.number <= last:
            raise RefusedError(Reason.REPEATED, "not a new number", "round", call.number, "go on")
        form = seat.replica.program.form(_checked(seat, call, begun))
        plans = seat.plans(call, form)
        name = seat.wire.identity.name
        if name not in cohort_names(seat.plan, form) or name in call.left_out:
            raise RefusedError(Reason.UNKNOWN_CLIENT, "not asked", "cohort", name, "wait")
        fresh = ClientRound(seat, call, form, plans)
        self.drop()
        self.used = call.number
        words = fresh.prepare()
        self.round = fresh
        return words

    def begin(self, call: Call) -> ClientRound | None:
        """What is prepared of a call that is to begin; of another it is thrown away. Raises
        RefusedError: `repeated` for a number that another call was prepared under.
        """
        prepared = self.round
        if prepared is not None and prepared.call == call:
            self.round = None
            return prepared
        if call.number <= self.used:
            value = (call.number, *shown(call.place), call.attempt)
            remedy = "call the round that was prepared, or take the next number"
            raise RefusedError(Reason.REPEATED, "another has its number", "round", value, remedy)
        self.drop()
        return None

    def drop(self) -> None:
        """Throw away what is prepared, for good."""
        if self.round is not None:
            self.round.leave()
        self.round = None


def _proposed(seat: Seat, post: Post) -> Call:
    """The call that a proposal comes to at this client, with its own key."""
    if seat.plan.protection == "plain":
        raise _out_of_turn("there is nothing to prepare", seat.plan.protection)
    key = seat.keyring.fingerprint if seat.plan.parameters is not None else bytes(32)
    left_out = post.names("left_out")
    return Call(post.header.round, post.place, left_out=left_out, key=key)


def _checked(seat: Seat, call: Call, begun: Call | None) -> Place:
    """The place of a proposal, where it is one to come; of the number after the last call's, where
    it is the next.
    """
    program, at = seat.replica.program, seat.replica.place
    if begun is not None and begun.place >= at:
        at = program.following(begun.place)
    next_one = begun is not None and call.number == begun.number + 1
    while not next_one and at < call.place and not program.done(at):
        at = program.following(at)
    if at != call.place or program.done(at):
        raise _out_of_turn("not a round to come", shown(call.place))
    return at


def _out_of_turn(problem: str, value: object) -> RoundRefusedError:
    remedy = "prepare the round that the program comes to next"
    return RoundRefusedError(RoundReason.OUT_OF_TURN, problem, "prepare", value, remedy)
