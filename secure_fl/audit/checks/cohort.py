"""Truncated cohorts: of which sizes does a client take lists and survivor sets?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.lies import Act, Edit, Spoken, Told
from secure_fl.audit.checks.scene import Scene, why_not
from secure_fl.audit.checks.stage import Stage
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.crypto.envelope import Phase
from secure_fl.privacy.claims import Adversary
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.messages import Dealers, Survivors

_MOST = {Depth.MINUTES: 16, Depth.HOUR: 48, Depth.NIGHT: 128}


@dataclass(frozen=True)
class Cohort:
    """Every size below the plan's n_min is shown to a real client, at each of three steps; the
    thresholds are computed here once more, from the settings.

    **Guarantee**: a client that takes a list, or signs a set, of fewer than the run's settings ask
    for is found.

    **Not covered**: which clients are in a list that is long enough: the claims say so.
    """

    name: str = "cohort"
    tried: str = "whether a client goes on with fewer others than the plan asks for"

    def refused(self, subject: Subject) -> str:
        return why_not(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 0.12 * min(_MOST[depth], subject.config.partition.clients)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        scene = Scene.of(subject, _MOST[depth])
        rules = scene.config.security.sums(scene.clients, scene.colluders)
        least = max(scene.form.opening.fewest, rules.survivors)
        told = list[Told]()
        for done, (phase, chunk, edit) in enumerate(_STEPS):
            lies = {f"{phase.name.lower()}: {size}": edit(size) for size in range(1, least)}
            told += Act(phase, chunk, lies).tell(scene)
            progress((done + 1) / len(_STEPS))
        honest = Act(Phase.ADVERTISE, 0, {f"advertise: {least}": _keys(least)})
        taken = [each.lie for each in told if each.taken]
        needed = _shares_needed(scene, rules.threshold)
        too_low = 2 * needed <= rules.holders or least < needed or needed < rules.threshold
        outcome = partial(Outcome, self.name, self.tried, Adversary.LIAR, "")
        if not any(each.told for each in told):
            return outcome("not tried", "no honest round comes so far that lists are shown")
        return outcome(
            "broken" if taken or too_low else "held",
            _said(taken, too_low, least, scene.clients),
            figures=(
                Figure("smallest list that a client takes", float(_smallest(told, least))),
                Figure("n_min, from the settings", float(least)),
                Figure("t, shares that open one client's secrets", float(needed)),
                Figure("2t - m, colluders of a server that lies", _liars(scene)),
                Figure(f"lists of {least} that are taken", _taken(honest, scene), limit=1.0),
            ),
        )


def _liars(scene: Scene) -> float:
    rules = scene.config.security.sums(scene.clients, scene.colluders)
    return float(rules.against_a_lying_server)


def _shares_needed(scene: Scene, stated: int) -> int:
    """Of the plan that parties go by; what the settings say where no round begins."""
    stage = Stage(scene)
    begins = stage.stop(Phase.ADVERTISE)
    return stage.round_plan.shares_needed if begins else stated


def _smallest(told: list[Told], least: int) -> int:
    sizes = [int(each.lie.split(": ")[1]) for each in told if each.taken]
    return min(sizes, default=least)


def _taken(honest: Act, scene: Scene) -> float:
    return float(sum(each.taken for each in honest.tell(scene)))


def _among(at: int, size: int, clients: int) -> tuple[int, ...]:
    """So many places, the reader's among them."""
    others = [place for place in range(clients) if place != at]
    return tuple(sorted([at, *others[: size - 1]]))


def _keys(size: int) -> Edit:
    def edit(said: Spoken) -> bytes:
        keys = unframe(said.body)
        return frames([keys[place] for place in _among(said.at, size, len(keys))])

    return edit


def _dealers(size: int) -> Edit:
    return lambda said: Dealers(_among(said.at, size, len(said.stage.names))).encode()


def _survivors(size: int) -> Edit:
    def edit(said: Spoken) -> bytes:
        stage, one = said.stage, said.stage.attempt.sums[0]
        places = _among(said.at, size, len(stage.names))
        view = one._book.view(one._dealers, places)
        return replace(Survivors.decode(said.body), view=view, survivors=places).encode()

    return edit


_STEPS: tuple[tuple[Phase, int, Callable[[int], Edit]], ...] = (
    (Phase.ADVERTISE, 0, _keys),
    (Phase.SHARE, 1, _dealers),
    (Phase.AGREE, 0, _survivors),
)


def _said(taken: list[str], too_low: bool, least: int, clients: int) -> str:
    if taken:
        return f"clients go on with fewer than n_min = {least} of {clients}: {', '.join(taken)}"
    if too_low:
        return "fewer clients than the settings say are enough to open a client's secrets"
    return f"every list of keys, dealers or survivors below n_min = {least} of {clients} is refused"


COHORT = Cohort()
