"""Are sketches released with the noise that is charged, also where the run claims nothing else?

Sums of vectors that stand still show single ones by difference, so sketches of protected runs enter
sums only as example-level releases: the centre's share, and the sketch. Both are played as a game.

**The game** (`example_game`) is played of both releases by the run's own clients; a canary's
contribution is 1 at most.

**Noise.** What was released, less the contribution, is held against the normal law that is charged,
and must lie on the grid that sums are made of: no low bit of a float leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.example_game import PLACES, Played, Sent, lone
from secure_fl.audit.checks.noise_law import measured, of_gaussian
from secure_fl.audit.checks.verdicts import Findings
from secure_fl.audit.game import LEAST_CANARIES
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.federation.asks import GiveCentre, GiveSketch
from secure_fl.federation.local.sketches import client_sketch
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.privacy.claims import Adversary
from secure_fl.privacy.events import Event, GaussianEvent
from secure_fl.privacy.ledger import PrivacyLedger, Release
from secure_fl.privacy.noise import NoiseSource
from secure_fl.privacy.private_sketch import GRID, PrivateSketch, on_grid
from secure_fl.training.tasks import embed

_CANARIES = {Depth.MINUTES: LEAST_CANARIES, Depth.HOUR: 5000, Depth.NIGHT: 20_000}
Kind = Literal["centre", "sketch"]


@dataclass(frozen=True)
class SketchNoise:
    """The check `sketch-noise`."""

    name: str = "sketch-noise"
    tried: str = (
        "whether a released sketch tells if an example is among the client's, better than the ε "
        "that is charged allows, and whether its noise is narrower or of another law"
    )

    def refused(self, subject: Subject) -> str:
        """Where no sketches are released with noise."""
        return "" if subject.config.noises_sketches else "the run releases no noised sketches"

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """By the number of canaries: each is in one release of either kind."""
        return 2 + 2 * _CANARIES[depth] * 0.003

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        """One game for each of the two releases."""
        found = Findings()
        released = subject.factory.sketch.released
        assert released is not None
        kinds: tuple[Kind, ...] = ("centre", "sketch") if released.centring else ("sketch",)
        maker, rng = _Maker(subject, released), np.random.default_rng(seed)
        for kind in kinds:
            if not found.broken:
                _game(maker, kind, _CANARIES[depth], rng, found)
            progress((kinds.index(kind) + 1) / len(kinds))
        return found.outcome(
            self,
            Adversary.MODEL,
            "example",
            f"{_CANARIES[depth]} canaries of each release are as hidden as charged",
        )


class _Box(ReleaseBox):
    """Keeps nothing but the last result, as it was released."""

    def __init__(self) -> None:
        super().__init__(None)
        self.last: dict[str, Tensor] = {}

    def once(
        self, key: str, make: Callable[[], dict[str, Tensor]], *, reused: bool = False
    ) -> dict[str, Tensor]:
        self.last = super().once(key, make, reused=reused)
        return self.last


class _Maker:
    """Has the run's clients release sketches of examples that are chosen here."""

    def __init__(self, subject: Subject, settings: PrivateSketch) -> None:
        self.config, self.ledger, self.factory = subject.config, subject.ledger, subject.factory
        self.settings = settings
        labelled = [one for one in subject.clients if _examples(one).labelled]
        self.clients = labelled if settings.classes else subject.clients
        self.bench = Workbench(self.factory)
        centre = torch.zeros(settings.features, dtype=torch.float64) if settings.centring else None
        self.sketch = GiveSketch(centre)

    def example(self, rng: np.random.Generator) -> tuple[ClientData, Tensor, Tensor]:
        """A client, and one of its examples and labels."""
        client = self.clients[int(rng.integers(len(self.clients)))]
        data = _examples(client)
        known = (data.y >= 0).nonzero().flatten() if self.settings.classes else range(len(data))
        place = int(known[int(rng.integers(len(known)))])
        return client, data.x[place], data.y[place]

    def contribution(self, kind: Kind, x: Tensor, y: Tensor) -> Tensor:
        """What one example adds to a sum, in lengths of 1, without noise."""
        form = self.factory.sketch
        rows = x[None]
        compute = self.factory.compute
        values = (
            embed(self.bench.kept_encoder, rows, compute) if form.of_encoder else form.values(rows)
        )
        if kind == "centre":
            return (on_grid(values).double() / GRID)[0]
        labels = y[None] if self.settings.classes else None
        return (self.settings.contributions(values, labels, self.sketch.centre).double() / GRID)[0]

    def released(
        self, kind: Kind, client: ClientData, x: Tensor, y: Tensor, *, there: bool
    ) -> tuple[Tensor, tuple[Release, ...]]:
        """A client's release, as a sum, and what it charges for it."""
        data = _examples(client)
        own = lone(data, x, y, there=there)
        box = _Box()
        releasing = Releasing(client.id, NoiseSource.fresh(), box)
        sketch = client_sketch(replace(client, train=own, sketched=None), self.bench, releasing)
        if kind == "centre":
            charged = sketch.releases(GiveCentre())
            sketch.centre(GiveCentre())
        else:
            charged = sketch.releases(self.sketch)
            sketch.give(self.sketch)
        return next(iter(box.last.values())).double() * PLACES, charged


def _examples(client: ClientData) -> Dataset:
    """Those that sketches are made of."""
    return client.train if client.sketched is None else client.sketched


def _game(
    maker: _Maker, kind: Kind, canaries: int, rng: np.random.Generator, found: Findings
) -> None:
    """Play it, and take in what it shows."""

    def sent(there: bool) -> Sent:
        client, x, y = maker.example(rng)
        own = maker.contribution(kind, x, y)
        total, releases = maker.released(kind, client, x, y, there=there)
        steps = total * GRID
        on_the_grid = bool((steps - steps.round()).abs().max() < 2.0**-10)
        found.exact(on_the_grid, f"a {kind} is released off its grid")
        return Sent(own, total, [release.event for release in releases])

    played = Played.of(canaries, sent)
    longest = f"an example adds {played.longest:.4g} to a {kind}, and 1 is charged"
    found.exact(played.longest <= 1 + 1e-9, longest)
    _judge(maker, kind, played.noise, played.charged, found)
    event = next(iter(played.charged))
    if not found.broken and isinstance(event, GaussianEvent):
        moved, deviation = event.contributions, event.noise_multiplier
        played.judge(event, moved, deviation, maker.config.privacy.delta, kind, found)


def _judge(
    maker: _Maker, kind: Kind, noise: Tensor, charged: Collection[Event], found: Findings
) -> None:
    """The law of the noise, and that one mechanism is charged: the one in the ledger."""
    found.exact(len(charged) == 1, f"a {kind} is charged in several ways, or not at all")
    for event in charged:
        if not isinstance(event, GaussianEvent) or event.sampling_rate < 1 or event.steps > 1:
            found.exact(False, f"a {kind} is charged as what it is not")
            continue
        drawn = noise.numpy() / event.noise_multiplier
        found.noise(measured(f"what is released of a {kind}", drawn * GRID, GRID**2))
        found.test(of_gaussian(drawn), f"the noise of a {kind} is not normal as charged")
    if maker.ledger is not None and maker.config.noises_sketches:
        kept = PrivacyLedger.load(maker.ledger).releases
        own = {each.event for each in kept if each.phase == kind}
        found.exact(own <= set(charged), f"the ledger charges another {kind} than is released")


SKETCH_NOISE = SketchNoise()
