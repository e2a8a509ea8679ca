"""Which pool a client chooses: what it says under one choice and under another, compared.

The same people play the same round twice. Counts are equal, and two clients have changed
places. All that is not under a mask, a key or a signature is compared byte by byte: who speaks
when, lengths, headers, which shares are given, and how many secret bytes were drawn.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.scene import Scene, made_up, why_not
from secure_fl.audit.checks.stage import Stage
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.crypto.envelope import Phase, body_of, read_header
from secure_fl.errors import SecureFLError
from secure_fl.federation.factory.updates import Updates
from secure_fl.federation.wire import route
from secure_fl.privacy.claims import Adversary
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.messages import Revealed

_MOST = {Depth.MINUTES: 10, Depth.HOUR: 24, Depth.NIGHT: 48}
_PAIRS = {Depth.MINUTES: 2, Depth.HOUR: 4, Depth.NIGHT: 8}


@dataclass
class _Drawn:
    """How many secret bytes each client drew at a time."""

    sizes: dict[str, list[int]] = field(default_factory=dict)

    def by(self, name: str) -> Callable[[int], bytes]:
        mine = self.sizes.setdefault(name, [])

        def draw(size: int) -> bytes:
            mine.append(size)
            return os.urandom(size)

        return draw


@dataclass(frozen=True)
class ChoiceHidden:
    """Rounds that differ in who chose what, and in nothing else that may be seen.

    **Guarantee**: a choice that shows in a length, an order, a header, a share or a draw is found.

    **Not covered**: times; what is under masks, which `masks` looks at; opened counts, which are
    equal here and say what the claims say.
    """

    name: str = "choice-hidden"
    tried: str = "whether what a client says tells its pool"

    def refused(self, subject: Subject) -> str:
        pools = subject.config.pools
        if not pools.enabled or pools.count < 2:
            return "clients choose no pool"
        return why_not(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        each = min(_MOST[depth], subject.config.partition.clients)
        return 0.04 * each * (1 + _PAIRS[depth])

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        scene = Scene.of(subject, _MOST[depth])
        outcome = partial(Outcome, self.name, self.tried, Adversary.SERVER, "client")
        first = _played(scene, 0, None)
        if not any(route(data).phase == Phase.UPLOAD for _, _, data in first[0].said):
            return outcome("not tried", f"no round comes to its uploads: {first[0].server.failed}")
        found, compared = set[str](), 0
        for number in range(1, _PAIRS[depth] + 1):
            other = _played(scene, min(number, scene.clients - 1), first[0])
            compared += len(first[1])
            found |= _differ(first[1], other[1])
            progress(number / (_PAIRS[depth] + 1))
        found |= _lengths(subject)
        said = f"{compared} messages of {scene.clients} clients are alike outside, whoever chose"
        return outcome(
            "broken" if found else "held",
            f"a choice shows in: {', '.join(sorted(found))}" if found else said,
            figures=(Figure("kinds of difference seen", float(len(found)), limit=0.0),),
        )


def _played(scene: Scene, alone: int, before: Stage | None) -> tuple[Stage, list[Any]]:
    """A round in which this client is alone in the last pool, and what is outside."""
    last, drawn = scene.form.shape.pools - 1, _Drawn()

    def chosen(client: int, _: int) -> int:
        return last if client == alone else 0

    stage = Stage(scene, made_up(scene, chosen), randomness=drawn.by, before=before)
    stage.run()
    seen: list[Any] = [_outside(stage, *each) for each in stage.said]
    return stage, [*seen, ("drawn", "", drawn.sizes)]


def _outside(stage: Stage, sender: str, to: str, data: bytes) -> tuple[str, str, Any]:
    """What somebody sees of a message who has no key: nothing in it is this stage's alone."""
    header = route(data)
    parts = [data] if data[:4] == b"SFE1" else [bytes(part) for part in unframe(data)]
    heads = [_head(stage, part) for part in parts]
    shares: Any = ()
    if sender in stage.names and header.phase in (Phase.OPEN_COUNTS, Phase.OPEN_POOLS):
        revealed = Revealed.decode(body_of(data))
        shares = revealed.passing, [entry[:2] for entry in revealed.shares]
    return sender, to, (len(data), [len(part) for part in parts], heads, shares)


def _head(stage: Stage, part: bytes) -> Any:
    """A header without hashes and without what names this attempt's keys."""
    header = read_header(part)
    known = {plan.parameter_text for plan in stage.plans}
    parameters = "of the sum" if header.parameters in known else header.parameters
    blank = {"body_hash": bytes(32), "key_fingerprint": bytes(32)}
    return replace(header, parameters=parameters, **blank)  # type: ignore[arg-type]


def _differ(one: list[Any], other: list[Any]) -> set[str]:
    """In what two rounds differ."""
    found = set[str]()
    if [each[:2] for each in one] != [each[:2] for each in other]:
        found.add("who speaks when")
    names = ("lengths of messages", "lengths of blocks", "headers", "shares given")
    for left, right in zip(one, other, strict=False):
        if left[0] == "drawn" or right[0] == "drawn":
            found |= {"secret bytes drawn"} if left[2] != right[2] else set()
            continue
        pairs = zip(names, left[2], right[2], strict=True)
        found |= {name for name, mine, its in pairs if mine != its}
    return found


def _lengths(subject: Subject) -> set[str]:
    """The run's own vectors, one a pool: of one form, whatever is chosen."""
    config, factory = subject.config, subject.factory
    updates = Updates.of(factory, "cluster", config.security.min_pool_clients)
    forms = set[object]()
    for pool in range(config.pools.count):
        try:
            if updates.level is None:
                width = updates.grid.shared + updates.grid.pooled
                blocks = updates.grid.blocks(torch.zeros(width), pool)
            else:
                width = updates.level.shared + updates.level.pooled
                inside = True if updates.level.bit_noise is not None else None
                stream = NoiseSource.fresh().stream(client=0, round=0, purpose="audit")
                integers = updates.level.encode(torch.zeros(width), stream=stream)
                blocks = updates.level.blocks(integers, pool, inside=inside)
        except SecureFLError as error:
            forms.add((error.field,))
            continue
        forms.add((blocks.head.shape, blocks.shared.shape, blocks.pools.shape))
    return {"the form of a vector"} if len(forms) > 1 else set()


CHOICE_HIDDEN = ChoiceHidden()
