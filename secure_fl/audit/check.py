"""What a check of an audit is, and what a planted fault is that it must catch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig


class Depth(StrEnum):
    """How long an audit may take: all of it within ten minutes, an hour, a night."""

    MINUTES = "minutes"
    HOUR = "hour"
    NIGHT = "night"


class Check(Protocol):
    """Tries to falsify one thing that a run claims. It has no state: all of it is in arguments."""

    @property
    def name(self) -> str:
        """As in `audit.json` and on the command line: lower case, words joined by hyphens."""

    @property
    def tried(self) -> str:
        """What it asks, in a clause that begins with `whether` or `how far`; yes is bad."""

    def refused(self, subject: Subject) -> str:
        """Why it does not apply to this subject; empty where it does. Takes no time."""

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """Seconds that it will take on one core, roughly. Takes no time."""

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        """Try it.

        Args:
            subject: what is audited; nothing in its folder is changed.
            depth: how thorough to be.
            seed: of what the check draws; coins of a game, and whatever a mechanism draws by
                itself, come from the operating system.
            progress: is told now and then which share is done.
        """


@dataclass(frozen=True)
class Fault:
    """A mechanism that is broken on purpose, in this process alone, to see that a check finds it.

    Attributes:
        name: what is broken, in a few words: `half noise`.
        check: name of the check that must say `broken`.
        config: a small run on which it shows, and on which the check says `held` without it.
        plant: breaks it for as long as the context lasts.
        finished: whether the check needs a run that has ended. The self-test runs the configuration
            first, within the fault too, and gives the check its folder.
    """

    name: str
    check: str
    config: Callable[[], FederationConfig]
    plant: Callable[[], AbstractContextManager[object]]
    finished: bool = False
