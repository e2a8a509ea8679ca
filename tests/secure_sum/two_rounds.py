"""A client and a server in two rounds at once, without the parties of a federation around them.

What rides, and why nothing is gained by it, stands in `secure_fl/federation/parties/ahead.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from secure_fl.crypto.envelope import claimed_header, read_header
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import Message, Step


class ClientRounds:
    """One client: the round that runs, and at most one that is prepared.

    Args:
        make: the client in a round, fresh, or as its store has it.
    """

    def __init__(self, make: Callable[[RoundPlan], RoundClient]) -> None:
        self._make = make
        self._current: RoundClient | None = None
        self._ahead: RoundClient | None = None

    @property
    def current(self) -> RoundClient:
        """In the round that runs: whether it is `ready` for its vector, what it `opened`.

        Raises:
            RoundRefusedError: `out-of-turn` before the first.
        """
        if self._current is None:
            raise _not_begun()
        return self._current

    def begin(self, plan: RoundPlan) -> list[bytes]:
        """Go over to the next round, prepared or not; what is to be sent for it, if anything.

        For the round that runs, what it has to say first, again.

        Raises:
            RoundRefusedError: `already-begun` or `already-opened`, as `RoundClient.advertise`.
            SecureSumError: its store is damaged, or another's.
        """
        if self._current is not None and self._current.plan == plan:
            return self._current.begin()
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.plan == plan:
            self._current = ahead
            return ahead.begin()
        if ahead is not None:
            ahead.leave()
        client = self._make(plan)
        words, self._current = client.begin(), client
        return words

    def prepare(self, plan: RoundPlan) -> list[bytes]:
        """Begin the set-up of a later round beside the one that runs; what is to be sent for it.

        A client outside of the cohort of the round that runs prepares the next one all the same.

        Raises:
            RoundRefusedError: as `begin`; `out-of-turn` for a number that is not later.
            SecureSumError: its store is damaged, or another's.
        """
        if self._current is not None:
            check_later(plan, self._current)
        if self._ahead is not None:
            if self._ahead.plan == plan:
                return self._ahead.begin()
            self._ahead.leave()
            self._ahead = None
        client = self._make(plan)
        words, self._ahead = client.begin(), client
        return words

    def receive(self, data: bytes) -> list[bytes]:
        """Take one of the server's messages, of either round, and give the answers to it.

        Raises:
            RefusedError: `stale` or `future` for another round; else as `RoundClient.receive`.
            RoundRefusedError: the same.
        """
        number = read_header(data).round
        for client in (self._current, self._ahead):
            if client is not None and client.plan.round == number:
                return client.receive(data)
        raise _elsewhere(number, self.current.plan.round)


class ServerRounds:
    """The server: the round that runs, and at most one that is prepared.

    Args:
        make: the server in a round, and the messages that it has to send again where it was killed
            in that round before (`RoundServer.resume`); none for a fresh one.
        unused: a number that no round had yet, but for those that are to be taken up again.
    """

    def __init__(
        self, make: Callable[[RoundPlan], tuple[RoundServer, list[Message]]], unused: int = 0
    ) -> None:
        self._make = make
        self.unused = unused
        """The least number that a round may have that is begun or prepared next."""
        self.failed: SecureSumError | None = None
        """Why the round that was prepared can not be had, if it can not; the one that runs can."""
        self._current: RoundServer | None = None
        self._ahead: RoundServer | None = None

    @property
    def current(self) -> RoundServer:
        """In the round that runs: its step, its survivors.

        Raises:
            RoundRefusedError: `out-of-turn` before the first.
        """
        if self._current is None:
            raise _not_begun()
        return self._current

    @property
    def waiting(self) -> frozenset[str]:
        """Who has not answered yet, in either round."""
        riding = self._riding
        return self.current.waiting | (frozenset() if riding is None else riding.waiting)

    @property
    def prepared(self) -> frozenset[str]:
        """Clients whose set-up of the next round is finished: they can upload in it."""
        ahead = self._ahead
        return ahead.waiting if ahead is not None and ahead.step == Step.UPLOAD else frozenset()

    def begin(self, plan: RoundPlan) -> list[Message]:
        """Go over to the next round; from then on its answers are waited for.

        Returns:
            What is to be sent again, where the server was killed in that round before.

        Raises:
            RoundRefusedError: `already-begun` for a number below `unused` that is not prepared.
            SecureSumError: its journal is damaged, or another plan's.
        """
        ahead, self._ahead, self.failed = self._ahead, None, None
        if ahead is not None and ahead.plan == plan:
            self._current = ahead
            return []
        self._current, messages = self._new(plan)
        return messages

    def prepare(self, plan: RoundPlan) -> list[Message]:
        """From now on let the set-up of a later round ride; see `begin`.

        Raises:
            RoundRefusedError: `out-of-turn` for a number that is not later, or `already-begun`.
        """
        check_later(plan, self.current)
        if self._ahead is not None and self._ahead.plan == plan:
            return []
        self._ahead, messages = self._new(plan)
        self.failed = None
        return messages

    def receive(self, data: bytes | memoryview) -> str | None:
        """Take one message, of either round; the reason it was refused for, if it was."""
        ahead = self._ahead
        if ahead is not None and claimed_round(data) == ahead.plan.round:
            return ahead.receive(data)
        return self.current.receive(data)

    def advance(self) -> list[Message]:
        """End the step of the round that runs, and of the set-up that rides on it.

        Where that set-up fails, the round that runs goes on, and `failed` says why.

        Raises:
            RoundRefusedError, SecureSumError, FileError: as `RoundServer.advance`.
        """
        current = self.current
        messages = current.advance()
        riding = self._riding
        if riding is not None:
            try:
                messages = [*messages, *riding.advance()]
            except SecureSumError as error:
                self._ahead, self.failed = None, error
        return messages

    @property
    def _riding(self) -> RoundServer | None:
        """The round that is prepared, while its set-up goes on."""
        unfinished = self._ahead is not None and self._ahead.step < Step.UPLOAD
        return self._ahead if unfinished else None

    def _new(self, plan: RoundPlan) -> tuple[RoundServer, list[Message]]:
        if plan.round < self.unused:
            remedy = f"take the number {self.unused}"
            raise RoundRefusedError(
                RoundReason.ALREADY_BEGUN,
                "its number was used",
                field="round",
                value=plan.round,
                remedy=remedy,
            )
        self.unused = plan.round + 1
        return self._make(plan)


def check_later(plan: RoundPlan, current: RoundClient | RoundServer) -> None:
    """Refuse to prepare a round that does not come after the one that runs.

    Raises:
        RoundRefusedError: `out-of-turn`.
    """
    if plan.round <= current.plan.round:
        raise RoundRefusedError(
            RoundReason.OUT_OF_TURN,
            "not after the round that runs",
            field="round",
            value=plan.round,
            remedy="begin a round, then prepare one with a later number",
        )


def _elsewhere(number: int, current: int) -> RefusedError:
    reason = Reason.STALE if number < current else Reason.FUTURE
    return RefusedError(
        reason,
        f"round {current} is running",
        field="round",
        value=number,
        remedy="send what belongs to it, or to the round that is prepared",
    )


def _not_begun() -> RoundRefusedError:
    return RoundRefusedError(
        RoundReason.OUT_OF_TURN, "no round was begun", field="round", value=None, remedy="begin one"
    )


def claimed_round(data: bytes | memoryview) -> int | None:
    """The round that a message claims to belong to; None where it cannot be read."""
    try:
        return claimed_header(data).round
    except SecureSumError:
        return None
