"""What taking part costs this machine, beforehand: seconds and bytes a round, memory and disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from secure_fl.config import FederationConfig
from secure_fl.data.partitions import ClientData
from secure_fl.deployment.site.data import natural
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.lines import Line
from secure_fl.deployment.site.network import Carries
from secure_fl.estimate import PhaseCost, estimate
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.site import program_of
from secure_fl.federation.steps.order import steps_of
from secure_fl.quantities import counted, duration, size

EXCHANGES = 10
"""How often a round waits for sites, at most: see `federation.parties.ahead`."""
_ROOM, _SHORT = 1.2, 10.0
"""By which memory and disk are taken larger than estimated; seconds shown with a fraction."""


@dataclass(frozen=True)
class _Small:
    """What `estimate` reads of a federation, with this site's clients only."""

    config: FederationConfig
    factory: Factory
    clients: list[ClientData]


def costs(
    folder: SiteFolder,
    plan: Plan,
    clients: Mapping[str, ClientData],
    way: Carries | None = None,
) -> Iterator[Line]:
    """Lines of what it takes: time is timed on noise here, bytes follow from the plan.

    Args:
        way: to the server; predicted seconds leave sending out without it.
    """
    config, here = natural(plan.config), list(clients.values())
    small = _Small(config, program_of(plan).factory, here)
    taken = estimate(cast("Any", small))
    steps = {step.name: number for number, step in enumerate(steps_of(small.factory))}
    for phase in taken.phases:
        if phase.name in steps and (rounds := _left(phase, steps[phase.name], plan.begins)):
            yield _phase(phase, rounds, len(here), way)
    yield _disk(folder, int(_ROOM * taken.disk * len(here)))
    yield _memory(int(_ROOM * taken.memory))


def _left(phase: PhaseCost, step: int, begins: Place) -> int:
    """Rounds that there may be of a step; a plan that goes on from another begins later."""
    most = phase.rounds if phase.most is None else phase.most
    done = begins.round if step == begins.step else 0
    return 0 if step < begins.step else most - done


def _phase(phase: PhaseCost, most: int, here: int, way: Carries | None) -> Line:
    share = min(here, phase.clients) / phase.clients
    up, down = phase.up * share, phase.down * share
    seconds = (phase.seconds or 0.0) * share
    rounds = counted(most, "round")
    said = f"{rounds} at most; a round: {size(up)} out, {size(down)} in, {_time(seconds)} here"
    if way is None:
        return Line.ok(f"phase {phase.name}", f"{said}, and what sending takes")
    sent = up / way.out + down / way.into + EXCHANGES * way.round_trip
    said = f"{said}, {_time(sent)} on the way: {_time(seconds + sent)} of this site's"
    return Line.ok(f"phase {phase.name}", said)


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < _SHORT else duration(seconds)


def _disk(folder: SiteFolder, needed: int) -> Line:
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        said = f"{size(free)} free, about {size(needed)} needed"
        return Line.fail("disk", said, "make room, or move the folder to another disk")
    return Line.ok("disk", f"{size(free)} free, about {size(needed)} needed")


def _memory(needed: int) -> Line:
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if there < needed:
        said = f"{size(there)}, about {size(needed)} needed"
        return Line.fail("memory", said, "take a larger machine, or fewer clients on this one")
    return Line.ok("memory", f"{size(there)}, about {size(needed)} needed")
