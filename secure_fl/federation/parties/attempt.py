"""The server in one attempt at a round: a sum, or one for each group of clients, side by side.

Guarantee: each step of a sum ends when everybody it waits for has answered, has refused, or the
deadline has passed; a sum that fails leaves the others alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from secure_fl.crypto.envelope import Header, Phase
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason
from secure_fl.errors import SecureSumError
from secure_fl.federation.calling import Call
from secure_fl.federation.parties.server_record import evidence_in
from secure_fl.federation.party import Message
from secure_fl.federation.program import SumForm
from secure_fl.federation.wire import refused
from secure_fl.secure_sum.block_codec import ServerCipher
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import PHASES, Refusal, Step


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
    """Sums with one number.

    Args:
        call: what was called.
        form: of the round's sum.
        plans: of the sums.
        identity: the server's.
        cipher: what adds ciphertexts; None where nothing is encrypted.
        deadlines: how long each step may take.
        now: the time.
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
    ) -> None:
        self.call, self.form, self.plans = call, form, tuple(plans)
        self.sums = tuple(RoundServer(plan, identity, cipher=cipher) for plan in plans)
        self.failed: dict[int, SecureSumError] = {}
        self.gone: set[str] = set()
        """Who refused: nobody waits for them any more."""
        self.silent: set[str] = set()
        """Who did not even answer the call."""
        self.opening = False
        """Whether anybody has sent what opens a pool, or counts that noise hides."""
        self.missed: list[dict[str, str]] = [{} for _ in plans]
        """Of each sum: who was silent, and in which phase first."""
        self.evidence: list[list[bytes]] = [[] for _ in plans]
        """Of each sum: signed messages, and signed heads of uploads."""
        self._blamed = Counter[str]()
        self._parts = {plan.parameter_text: part for part, plan in enumerate(plans)}
        self._deadlines = deadlines
        self._until = [now + self._seconds(one) for one in self.sums]

    @property
    def cohort(self) -> tuple[str, ...]:
        """Everybody who was called."""
        return tuple(sorted(name for plan in self.plans for name in plan.cohort))

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
        """Take one message of a sum; the reason why it was refused, if it was.

        Raises:
            RefusedError: `stale`, `future` or `wrong-parameters`: it belongs to none of the sums.
        """
        number = self.call.number
        if header.round != number:
            reason = Reason.STALE if header.round < number else Reason.FUTURE
            raise refused(reason, f"round {number} is running", "round", header.round, "wait")
        part = self._parts.get(header.parameters)
        if part is None:
            found = header.parameters
            raise refused(Reason.WRONG_PARAMETERS, "another sum's", "parameters", found, "none")
        said = self.sums[part].receive(data)
        if said is None:
            self.evidence[part] += evidence_in(header.phase, data)
            noised = self.plans[part].noised_head and header.phase == Phase.OPEN_COUNTS
            self.opening |= noised or header.phase == Phase.OPEN_POOLS
        return said

    def leave(self, name: str, blamed: Sequence[str]) -> None:
        """A client goes no further, and names who made it."""
        self.gone.add(name)
        self._blamed.update(set(blamed) & set(self.cohort))

    def advance(self, now: float) -> list[Message]:
        """End every step that is complete or late; what is to be sent then."""
        sent: list[Message] = []
        for part, one in enumerate(self.sums):
            while one.step != Step.DONE and (now >= self._until[part] or one.waiting <= self.gone):
                if one.step == (Step.ADVERTISE if self.plans[part].masked else Step.UPLOAD):
                    self.silent |= one.waiting - self.gone
                for name in one.waiting:
                    self.missed[part].setdefault(name, PHASES[one.step].name.lower())
                try:
                    sent += [Message(each.recipient, each.data) for each in one.advance()]
                except SecureSumError as error:
                    self.failed[part] = error
                self._until[part] = now + self._seconds(one)
        return sent

    def blamed(self) -> frozenset[str]:
        """Clients that made the sums fail: whom the server found, or most of those who refused."""
        found = {name for error in self.failed.values() for name in getattr(error, "blamed", ())}
        most = {name for name, count in self._blamed.items() if 2 * count > len(self.gone)}
        return frozenset((found | most) & set(self.cohort))

    def _seconds(self, one: RoundServer) -> float:
        return self._deadlines.train if one.step == Step.UPLOAD else self._deadlines.answer
