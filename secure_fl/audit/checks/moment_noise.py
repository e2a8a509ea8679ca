"""Are sums of view moments noised as charged, and does an example add no more than is charged?

Everybody's noise together hides an example in the opened sum, and each client adds one share of it.
What leaves one client is looked at here: the same mechanism with one share's variance.

**The game** (`example_game`) is played of both sums by the run's own clients, against the ε of a
single share; a canary's part is the bound at most.

**Noise.** What was sent, less the canary's part, is held against the law of a share: as many of
them as are charged for must add up to the variance that is charged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.example_game import Played, Sent, lone
from secure_fl.audit.checks.noise_law import measured, of_integers
from secure_fl.audit.checks.verdicts import Findings
from secure_fl.audit.game import LEAST_CANARIES
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.federation.asks import SumFeatures, SumMoments
from secure_fl.federation.local.local import Local
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.privacy.claims import Adversary
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource

_CANARIES = {Depth.MINUTES: LEAST_CANARIES, Depth.HOUR: 3000, Depth.NIGHT: 10_000}
_FIELDS = 4000
"""Fields of an answer whose noise is looked at, at most."""
_USUAL = 512
"""Features where the settings name no number."""
Ask = SumFeatures | SumMoments


@dataclass(frozen=True)
class MomentNoise:
    """The check `moment-noise`."""

    name: str = "moment-noise"
    tried: str = (
        "whether a client's part of the sums of view moments tells if an example is among its own, "
        "better than its share of the noise allows, and whether that share is narrower than charged"
    )

    def refused(self, subject: Subject) -> str:
        """Where no sums of view moments are noised."""
        return "" if subject.config.noises_moments else "the run noises no sums of view moments"

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """By the canaries, each of which is in one answer of either kind, their views, and the
        fields of a matrix.
        """
        views = subject.config.pretrain.views_per_example
        width = (subject.config.model.features or _USUAL) / _USUAL
        return 5 + _CANARIES[depth] * (0.006 + 0.003 * views + 0.025 * width**2)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        """One game for each of the two sums."""
        found, sender, rng = Findings(), _Sender(subject), np.random.default_rng(seed)
        width = subject.factory.features
        asks: tuple[Ask, ...] = (SumFeatures(), SumMoments(torch.zeros(width).double()))
        for number, ask in enumerate(asks):
            if not found.broken:
                _game(sender, ask, number, _CANARIES[depth], rng, found)
            progress((number + 1) / len(asks))
        held = f"{_CANARIES[depth]} canaries of each sum are as hidden as a share of the noise does"
        return found.outcome(self, Adversary.SERVER, "example", held)


class _Sender:
    """Has the run's clients answer with examples that are chosen here."""

    def __init__(self, subject: Subject) -> None:
        self.config, self.ledger, self.factory = subject.config, subject.ledger, subject.factory
        self.clients, self.bench = subject.clients, Workbench(self.factory)

    def sent(self, ask: Ask, rng: np.random.Generator, there: bool) -> Sent:
        """A client's answer where one of its examples is there or not, without the count."""
        client = self.clients[int(rng.integers(len(self.clients)))]
        own, place = client.train, int(rng.integers(len(client.train)))
        alone, empty = (
            Local(
                replace(client, train=lone(own, own.x[place], own.y[place], there=at)), self.bench
            )
            for at in (True, False)
        )
        releasing = Releasing(client.id, NoiseSource.fresh(), ReleaseBox(None))
        protection = ExampleLevel(alone if there else empty, releasing)
        charged = [each.event for each in protection.releases(ask, 0)]
        part, total = alone.moments.total(ask), protection.sum_examples(ask)
        return Sent(part[:-1].double(), total[:-1].double(), charged)


def _game(
    sender: _Sender, ask: Ask, number: int, canaries: int, rng: np.random.Generator, found: Findings
) -> None:
    """Play it, and take in what it shows."""
    name = ("centre", "moments")[number]
    played = Played.of(canaries, partial(sender.sent, ask, rng), _FIELDS)
    found.exact(len(played.charged) == 1, f"the {name} is charged in several ways")
    event = next(iter(played.charged))
    if not isinstance(event, IntegerEvent):
        found.exact(False, f"the {name} is charged as what it is not")
        return
    longest = f"an example adds {played.longest:.5g} steps, {event.l2:g} charged"
    found.exact(played.longest <= event.l2, longest)
    _judge(sender, name, played.noise, event, found)
    if not found.broken:
        share, delta = event.own_share(), sender.config.privacy.delta
        played.judge(share, event.l2, share.variance**0.5, delta, name, found)


def _judge(sender: _Sender, name: str, noise: Tensor, event: IntegerEvent, found: Findings) -> None:
    """The law of one share, and that the ledger charges what the mechanism says of itself."""
    share, drawn = event.own_share(), noise.numpy()
    found.noise(measured(f"a share of the {name}", drawn, share.variance))
    law = of_integers(noise.long().numpy(), share.kind, share.variance)
    found.test(law, f"the noise of the {name} is not of the law that is charged")
    shares = sender.factory.view_moments.moments.shares
    certain = shares is not None and event.parties <= shares.n_min - shares.colluders
    found.exact(certain, f"the {name} is charged for more shares than are certain")
    if sender.ledger is not None:
        number = ("centre", "moments").index(name)
        kept = PrivacyLedger.load(sender.ledger).releases
        own = {each.event for each in kept if (each.phase, each.round) == ("pretrain", number)}
        found.exact(own <= {event}, f"the ledger charges another {name} than is released")


MOMENT_NOISE = MomentNoise()
