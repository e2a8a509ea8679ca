"""A server that lies, against real parties under the run's own thresholds: is anything let go?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.lies import ACTS, Told
from secure_fl.audit.checks.longer_lies import LONGER
from secure_fl.audit.checks.scene import Scene, why_not
from secure_fl.audit.outcome import Figure, Outcome, Verdict
from secure_fl.audit.subject import Subject
from secure_fl.errors import SecureFLError
from secure_fl.privacy.claims import Adversary

_MOST = {Depth.MINUTES: 16, Depth.HOUR: 48, Depth.NIGHT: 128}
"""Clients that are played."""
Teller = Callable[[Scene], Iterator[Told]]
TELLERS: tuple[Teller, ...] = (*(act.tell for act in ACTS), *LONGER)


@dataclass(frozen=True)
class Liar:
    """Every refusal that a run counts on is tried: each lie once, told to a client that follows the
    protocol.

    **Guarantee**: what is called broken was let go by the run's own code, under its own thresholds.

    **Assumes**: clients of the run are what this installation makes.

    **Not covered**: lies that nobody thought of; what the claims concede (2t − m colluders, a shift
    of a sum that opens); sparse graphs, in which a run of many clients masks: fewer are played, all
    with all.
    """

    name: str = "liar"
    tried: str = (
        "whether a server that lies, with fewer colluders than the claims concede, gets a share, "
        "an opening or an answer that it must not have"
    )

    def refused(self, subject: Subject) -> str:
        return why_not(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        encrypted = subject.config.security.protection == "bfv+masked"
        clients = min(_MOST[depth], subject.config.partition.clients)
        return (0.6 if encrypted else 0.2) * clients + 0.01 * clients**2

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        told = list[Told]()
        scene = Scene.of(subject, _MOST[depth])
        for number, teller in enumerate(TELLERS):
            try:
                told += teller(scene)
            except SecureFLError as error:  # of the honest round, on which the lie is built
                told.append(Told(f"those about {_about(teller)}", error.code, told=False))
            progress((number + 1) / len(TELLERS))
        taken = [each for each in told if each.taken]
        verdict: Verdict = "broken" if taken else "held"
        if not any(each.told for each in told):
            verdict = "not tried"
        outcome = partial(Outcome, self.name, self.tried, Adversary.LIAR, "")
        return outcome(
            verdict,
            _said(scene, told, taken),
            figures=tuple(_figure(each) for each in told),
        )


def _figure(told: Told) -> Figure:
    """Whether a lie was taken; what it was refused with is in its name."""
    return Figure(f"{told.lie}: {told.word or 'taken'}", float(told.taken), limit=0.0)


def _about(teller: Teller) -> str:
    """What a row of lies is about, by the name of what tells it."""
    return getattr(teller, "__name__", "sums").replace("_", " ")


def _said(scene: Scene, told: list[Told], taken: list[Told]) -> str:
    if taken:
        which = ", ".join(f"{each.lie} ({each.word or 'taken'})" for each in taken)
        return f"{len(taken)} of {len(told)} lies opened something or were gone along with: {which}"
    size, config = scene.clients, scene.config
    rules = config.security.sums(size, config.privacy.colluders)
    missing = [each.lie for each in told if not each.told]
    more = f"; not told, since the honest round fails: {', '.join(missing)}" if missing else ""
    return (
        f"{len(told) - len(missing)} lies, told to {size} clients with t = {rules.threshold} and "
        f"n_min = {rules.survivors}: each was refused, and no share was let go{more}"
    )


LIAR = Liar()
