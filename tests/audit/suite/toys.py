"""Checks that hold, break, raise, and die: what an audit does with each does not depend on them."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from helpers import tiny_config

from secure_fl.audit.check import Depth, Fault
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.errors import PrivacyError

CALLS = "SECURE_FL_TOY_CALLS"
"""Names a file to which every toy that runs adds its name: it is seen across processes."""


class Bank:
    """What toys look at, and faults break."""

    sound = True


@dataclass(frozen=True)
class Toy:
    name: str
    do: Callable[[], Figure | None] = field(repr=False)
    verdict: Callable[[], str] = field(default=lambda: "held", repr=False)
    why: str = ""
    seconds: float = 1.0
    tried: str = "whether a toy is unsound"

    def refused(self, subject: Subject) -> str:
        return self.why

    def estimate(self, subject: Subject, depth: Depth) -> float:
        if self.seconds < 0:
            raise PrivacyError("no noise is enough", "privacy.noise", 3, "take fewer rounds")
        return self.seconds * (1 if depth is Depth.MINUTES else 60)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        if CALLS in os.environ:
            with Path(os.environ[CALLS]).open("a") as file:
                file.write(f"{self.name}\n")
        progress(0.5)
        found = self.do()
        figures = () if found is None else (found,)
        verdict, said = self.verdict(), f"seen at seed {seed}"
        return Outcome(self.name, self.tried, "server", "example", verdict, said, figures=figures)  # type: ignore[arg-type]


def _typed() -> None:
    raise PrivacyError("the plan has no noise", "privacy.noise", "SECRET", "set it")


def _untyped() -> None:
    raise ValueError("SECRET row 17")


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _interrupted() -> None:
    if not os.environ.get("SECURE_FL_TOY_GO_ON"):
        raise KeyboardInterrupt


HOLDS = Toy("holds", lambda: Figure("rate", 0.5, chance=0.5))
BREAKS = Toy("breaks", lambda: Figure("bound", math.inf), lambda: "broken")
RAISES = Toy("raises", _typed)
FAILS = Toy("fails", _untyped)
DIES = Toy("dies", _killed)
NAN = Toy("nan", lambda: Figure("rate", math.nan))
NOT_HERE = Toy("not-here", lambda: None, why="there are no pools")
UNPLANNED = Toy("unplanned", lambda: None, seconds=-1.0)
INTERRUPTED = Toy("interrupted", _interrupted)
SLOW = Toy("slow", lambda: None, seconds=900.0)
NAPS = Toy("naps", lambda: time.sleep(0.05))
LOOKS = Toy("looks", lambda: None, lambda: "held" if Bank.sound else "broken")
NERVOUS = Toy("nervous", lambda: None, lambda: "broken")
BLIND = Toy("blind", lambda: None)
HAS_FOLDER = Toy("has-folder", lambda: None)


@dataclass(frozen=True)
class OfFolder(Toy):
    """Looks at a finished run: whether it says that its bank was sound."""

    def refused(self, subject: Subject) -> str:
        return "" if subject.folder is not None else "there is no folder"

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        assert subject.summary is not None
        verdict = "held" if subject.summary.name == subject.config.name else "broken"
        return Outcome(self.name, self.tried, "", "", verdict, "read")  # type: ignore[arg-type]


READS = OfFolder("reads", lambda: None)


@contextmanager
def unsound() -> Iterator[None]:
    with patch.object(Bank, "sound", new=False):
        yield


@contextmanager
def lasting() -> Iterator[None]:
    """A fault that outlives its context."""
    Bank.sound = False
    yield


@contextmanager
def misnamed() -> Iterator[None]:
    from secure_fl import run

    told = run.final_summary

    def wrong(config: FederationConfig, *rest: object) -> object:
        return told(config.model_copy(update={"name": "another"}), *rest)  # type: ignore[arg-type]

    with patch.object(run, "final_summary", wrong):
        yield


def quick() -> FederationConfig:
    return tiny_config(
        pretrain={"rounds": 1}, pools={"enabled": False}, evaluate={"probe_epochs": 1}
    )


FAULTS = (
    Fault("unsound bank", "looks", quick, unsound),
    Fault("never seen", "blind", quick, unsound),
    Fault("always seen", "nervous", quick, unsound),
    Fault("stays", "looks", quick, lasting),
    Fault("kills", "dies", quick, unsound),
    Fault("other name", "reads", quick, misnamed, finished=True),
)
