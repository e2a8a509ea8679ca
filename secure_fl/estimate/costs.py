"""What a run will take, as figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PhaseCost:
    """What one phase will take.

    Attributes:
        rounds: that there will be; of `sketch`, which ends when it has settled, as many as it
            usually takes.
        most: rounds that there may be.
        clients: called in a round.
        down, up: bytes of one round, over all clients; of `sketch` of a round of k-means.
        seconds: of one round, all parties in this process; None where time was not estimated.
    """

    name: str
    rounds: int
    clients: int
    down: int = 0
    up: int = 0
    seconds: float | None = None
    most: int | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all rounds, to the clients and from them."""
        return self.rounds * (self.down + self.up)


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        memory: bytes that the process will hold at its peak, about.
        disk: bytes that the run folder will hold, about.
    """

    phases: tuple[PhaseCost, ...]
    memory: int
    disk: int

    @property
    def bytes(self) -> int:
        """Bytes of all phases, to the clients and from them."""
        return sum(phase.bytes for phase in self.phases)

    @property
    def seconds(self) -> float | None:
        """Seconds of all phases; None where time was not estimated."""
        if any(phase.seconds is None for phase in self.phases):
            return None
        return sum(phase.rounds * (phase.seconds or 0.0) for phase in self.phases)
