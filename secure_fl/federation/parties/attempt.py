"""The server in one attempt at a round: a sum, or one for each group of clients, side by side.

Guarantee: each step of a sum ends when everybody it waits for has answered, has refused, or the
deadline has passed; a sum that fails leaves the others alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from secure_fl.crypto.envelope import Header, Phase
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureFLError, SecureSumError
from secure_fl.federation.parties.calling import Call
from secure_fl.federation.parties.party import Message
from secure_fl.federation.parties.server_record import evidence_in
from secure_fl.federation.program import SumForm
from secure_fl.federation.wire import route
from secure_fl.secure_sum.block_codec import ServerCipher
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.journal import RoundJournal
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.spool import Log
from secure_fl.secure_sum.steps import PHASES, Refusal, Step

_SPOILT = (
    "a client's upload spoils the sum, and nobody can tell whose it was",
    "begin again from the last state, a run with --resume; with security.robust the group of "
    "such a client is left out alone",
)
_NOBODYS = {str(RoundReason.STILL_MASKED): _SPOILT, str(Reason.OUT_OF_RANGE): _SPOILT}
"""What is said of sums that clients refuse to take, where their own word for it says too little."""
Failure = TypeVar("Failure", bound=SecureFLError)
Journals = Callable[[RoundPlan, int], RoundJournal]
"""The journal of a sum, by its plan and its group."""


@dataclass(frozen=True)
class Deadlines:
    """Seconds that each kind of answer may take.

    Attributes:
        join: clients that have not said whether they take part.
        answer: everything that takes no training.
        train: the answers themselves.
    """

    join: float = 600.0
    answer: float = 120.0
    train: float = 3600.0


class Attempt:
    """Sums with one number. Raises SecureSumError: a journal is damaged; FileError: one cannot be
    read or written.

    Args:
        call: what was called.
        form: of the round's sum.
        plans: of the sums.
        identity: the server's.
        cipher: what adds ciphertexts; None where nothing is encrypted.
        deadlines: how long each step may take.
        now: the time.
        journals: where each sum's messages are written, and taken up from; None where a kill ends
            the federation.
    """

    def __init__(
        self,
        call: Call,
        form: SumForm,
        plans: Sequence[RoundPlan],
        identity: Identity,
        cipher: ServerCipher | None,
        deadlines: Deadlines,
        now: float,
        journals: Journals | None = None,
    ) -> None:
        self.call, self.form, self.plans = call, form, tuple(plans)
        self.sums = tuple(RoundServer(plan, identity, cipher=cipher) for plan in plans)
        self.failed: dict[int, SecureSumError] = {}
        self.gone: dict[str, str] = {}
        """Who refused, and why: nobody waits for them any more."""
        self.revoked = frozenset[str]()
        """Who can come no more."""
        self.answered: set[str] = set()
        """Who has sent anything since it was made."""
        self.opening = False
        """Whether anybody has sent what opens a pool, or counts that noise hides."""
        self.missed: list[dict[str, str]] = [{} for _ in plans]
        """Of each sum: who was silent, and in which phase first."""
        self._signed = [Log() for _ in plans]
        self._blamed: dict[str, frozenset[str]] = {}
        self._heard = set[str]()
        self._parts = {plan.parameter_text: part for part, plan in enumerate(plans)}
        self._deadlines = deadlines
        self.again = [] if journals is None else self._taken_up(journals)
        """What went out last before the server was made again."""
        self._until = [now + self._seconds(one) for one in self.sums]

    def _taken_up(self, journals: Journals) -> list[Message]:
        sent = list[Message]()
        for part, one in enumerate(self.sums):
            plan, journal = self.plans[part], journals(self.plans[part], part)
            for data in journal.entries():
                if data is not None:
                    self.answered.add(route(data).sender)
                    self._note(part, route(data), data)
            try:
                found = one.resume(journal, partial(self._step_ends, part))
            except SecureSumError as error:
                if error.field == "round journal":
                    raise
                self.failed[part] = error
                continue
            late = one.waiting or set(plan.cohort)
            late |= {plan.authority} if plan.authority else set()
            sent += [Message(each.recipient, each.data) for each in found if each.recipient in late]
        return sent

    def _note(self, part: int, header: Header, data: bytes | memoryview) -> None:
        """Keep what a message says for others, and whether it opens anything."""
        self._signed[part].extend(evidence_in(header, data, self.plans[part].authority))
        noised = self.plans[part].noised_head and header.phase == Phase.OPEN_COUNTS
        self.opening |= noised or header.phase == Phase.OPEN_POOLS

    def restart(self, now: float) -> None:
        """Count what is waited for from now on."""
        self._until = [now + self._seconds(one) for one in self.sums]

    def begin(self, now: float) -> None:
        """It is called, prepared or not: answers are waited for from now on."""
        self.answered = set()
        self.restart(now)

    @property
    def keyless(self) -> set[str]:
        """Who has sent no keys yet."""
        return {name for one in self.sums if one.step == Step.ADVERTISE for name in one.waiting}

    @property
    def cohort(self) -> tuple[str, ...]:
        """Everybody who was called."""
        return tuple(sorted(name for plan in self.plans for name in plan.cohort))

    @property
    def silent(self) -> set[str]:
        """Who did not even answer the call, and was not heard of since."""
        first = {phase.name.lower() for phase in (Phase.ADVERTISE, Phase.UPLOAD)}
        missed = {name for each in self.missed for name, phase in each.items() if phase in first}
        return missed - self.gone.keys() - self.answered - self._heard

    @property
    def present(self) -> set[str]:
        """Who can be told what was opened: also who refused its own group's sum in the end."""
        uploaded = {name for one in self.sums for name in one.survivors}
        return set(self.cohort) - self.silent - self.revoked - (self.gone.keys() - uploaded)

    @property
    def away(self) -> frozenset[str]:
        """For whom nobody waits."""
        return self.revoked | self.gone.keys()

    @property
    def waits(self) -> dict[str, frozenset[str]]:
        """Who is waited for, by the phase of what they are to send."""
        found = dict[str, frozenset[str]]()
        for one in self.sums:
            if one.step != Step.DONE and (names := one.waiting - self.away):
                phase = PHASES[one.step].name.lower()
                found[phase] = found.get(phase, frozenset()) | names
        return found

    @property
    def over(self) -> bool:
        """Whether all sums are opened, or have failed."""
        return all(one.step == Step.DONE for one in self.sums)

    @property
    def opened(self) -> tuple[int, ...]:
        """Sums that were opened."""
        return tuple(part for part in range(len(self.sums)) if part not in self.failed)

    @property
    def left_out(self) -> list[Refusal]:
        """Clients that sums were gone on without, as no message of theirs was refused."""
        return [each for one in self.sums for each in one.refusals if not each.size]

    @property
    def until(self) -> float:
        """When the next step ends at the latest."""
        running = zip(self.sums, self._until, strict=True)
        return min((until for one, until in running if one.step != Step.DONE), default=0.0)

    def receive(self, header: Header, data: bytes | memoryview) -> str | None:
        """Take one message of a sum; the reason why it was refused, if it was. Raises RefusedError:
        `stale`, `future` or `wrong-parameters`: it belongs to none of the sums.
        """
        number = self.call.number
        if header.round != number:
            reason = Reason.STALE if header.round < number else Reason.FUTURE
            raise RefusedError(reason, f"round {number} is running", "round", header.round, "wait")
        part = self._parts.get(header.parameters)
        if part is None:
            raise RefusedError(
                Reason.WRONG_PARAMETERS, "another sum's", "parameters", header.parameters, "none"
            )
        said = self.sums[part].receive(data)
        if said is None:
            self.answered.add(header.sender)
            self._note(part, header, data)
        return said

    def leave(self, name: str, reason: str, blamed: Sequence[str]) -> None:
        """A client goes no further, and names who made it; what it said last counts."""
        self.gone[name] = reason
        self._blamed[name] = frozenset(blamed) & set(self.cohort)

    def hear(self, name: str) -> None:
        """A client that was silent is there, however late."""
        if any(name in missed for missed in self.missed):
            self._heard.add(name)

    def left(self) -> dict[str, list[Any]]:
        """Who went no further, as JSON values: of each the reason, and who made it."""
        return {name: [why, sorted(self._blamed[name])] for name, why in self.gone.items()}

    def evidence(self, part: int) -> list[bytes]:
        """Of a sum: signed messages, and signed heads of uploads."""
        uploads = map(unframe, self.sums[part].signed_uploads)
        return [*self._signed[part], *(head for heads in uploads for head in heads)]

    @property
    def unanswered(self) -> set[str]:
        """Who has not sent an answer yet, and could."""
        return {name for one in self.sums if one.step == Step.UPLOAD for name in one.waiting}

    def prepare(self) -> list[Message]:
        """Go on with the set-up as far as everybody has answered, before it is called."""
        self._until = [math.inf] * len(self.sums)
        return self._advanced(0.0, Step.UPLOAD)

    def advance(self, now: float) -> list[Message]:
        """End every step that is complete or late; what is to be sent then."""
        return self._advanced(now, Step.DONE)

    def _advanced(self, now: float, to: Step) -> list[Message]:
        sent: list[Message] = []
        for part, one in enumerate(self.sums):
            while one.step < to and (now >= self._until[part] or one.waiting <= self.away):
                self._step_ends(part)
                try:
                    sent += [Message(each.recipient, each.data) for each in one.advance()]
                except SecureSumError as error:
                    self.failed[part] = forgetful(error)
                self._until[part] = math.inf if to == Step.UPLOAD else now + self._seconds(one)
            self._check_signed(part)
        return sent

    def _check_signed(self, part: int) -> None:
        """Leave out a group whose sum too few signed for clients of other groups to take it."""
        plan, one = self.plans[part], self.sums[part]
        opened = one.step == Step.DONE and part not in self.failed and len(self.plans) > 1
        if opened and plan.opener == "clients" and len(one.signed) < plan.shares_needed:
            self.failed[part] = silent_group(part, "too few of it sign its sums")

    def error(self, part: int) -> SecureSumError:
        """Why a sum failed: where too few are left, what most of those refused who are missing;
        unless as many went without a word.
        """
        found = self.failed[part]
        members = self.plans[part].cohort
        reasons = Counter(reason for name, reason in self.gone.items() if name in members)
        silent = len(self.missed[part].keys() - self.gone.keys())
        refused = [word for word, count in reasons.most_common(1) if count > silent]
        if getattr(found, "reason", None) != RoundReason.TOO_FEW or not refused:
            return found
        word, problem = refused[0], "too few are left of those who were called"
        number, remedy = self.call.number, found.remedy
        if word in _NOBODYS:
            problem, remedy = _NOBODYS[word]
        if word in set(RoundReason):
            return RoundRefusedError(RoundReason(word), problem, "round", number, remedy)
        if word not in set(Reason):
            return found
        return RefusedError(Reason(word), problem, "round", number, remedy)

    def blamed(self) -> frozenset[str]:
        """Clients that made the sums fail: whom the server found, or most of those who refused."""
        found = {name for error in self.failed.values() for name in getattr(error, "blamed", ())}
        named = Counter(name for names in self._blamed.values() for name in names)
        most = {name for name, count in named.items() if 2 * count > len(self.gone)}
        return frozenset((found | most) & set(self.cohort))

    def _step_ends(self, part: int) -> None:
        one = self.sums[part]
        for name in one.waiting:
            self.missed[part].setdefault(name, PHASES[one.step].name.lower())

    def _seconds(self, one: RoundServer) -> float:
        return self._deadlines.train if one.step == Step.UPLOAD else self._deadlines.answer


def forgetful(error: Failure) -> Failure:
    """An error that is kept without what was in memory where it was raised."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def silent_group(part: int, problem: str = "nobody of it gives its sums") -> RoundRefusedError:
    """Why a group's sum is not to be had, though it was opened."""
    remedy = "it is left out of this round"
    return RoundRefusedError(RoundReason.TOO_FEW, problem, "group", part, remedy)
