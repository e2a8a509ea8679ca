"""What a check of an audit has to say: records, as they stand in `audit.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secure_fl.audit.bounds.result import Bound, Unbounded
from secure_fl.records import Record

Verdict = Literal["held", "broken", "not tried"]


@dataclass(frozen=True)
class Figure(Record):
    """A number that was measured, and what it is read against.

    Attributes:
        name: what it is, in words; with its unit where it has one.
        value: as measured.
        low, high: the interval of 95 % around it, where there is one.
        chance: what somebody reaches who saw nothing.
        limit: what the claim allows at most, where it says so.
        setting: which way was attacked: `defence off`, `defence on`, or empty.
    """

    name: str
    value: Unbounded
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    limit: float | None = None
    setting: str = ""


@dataclass(frozen=True)
class Picture(Record):
    """What an attack made out, to be looked at. It may show a client's example.

    Attributes:
        said: what is seen, in one sentence.
        png: the picture, base64.
    """

    said: str
    png: str


@dataclass(frozen=True)
class Outcome(Record):
    """One check's.

    Attributes:
        check: its name.
        tried: what it asked, in a clause that begins with `whether` or `how far`; yes is bad.
        against: who would look: one of `privacy.claims.Adversary`, or whoever else is meant.
        unit: whose privacy it is about; empty where it is about something else.
        verdict: `broken` where something that was claimed does not hold. `not tried` is no pass.
        said: what was seen, in one sentence; no examples, and nothing secret.
        false_alarm: the probability, at most, that an honest run is called broken; 0 where no coin
            decides.
        bounds: on ε from below.
        figures: what was measured.
        pictures: of attacks.
        seconds: that it took, as who ran the check saw; no check says so itself.
    """

    check: str
    tried: str
    against: str
    unit: Literal["example", "client", ""]
    verdict: Verdict
    said: str
    false_alarm: float = 0.0
    bounds: tuple[Bound, ...] = ()
    figures: tuple[Figure, ...] = ()
    pictures: tuple[Picture, ...] = ()
    seconds: float = 0.0
