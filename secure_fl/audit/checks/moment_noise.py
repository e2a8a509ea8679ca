"""Are sums of view moments noised as charged, and does an example add no more than is charged?

Everybody's noise together hides an example in the opened sum, and each client adds one share of it.
What leaves one client is looked at here: the same mechanism with one share's variance.

**The game.** A canary is an example at a client of the run whose other places are empty: by its
coin it is there, or its place is empty too (zero-out). It is scored by the length of what the
client sent along the canary's own part, which is the bound at most. Both sums are played, by the
run's own clients, each answer with fresh noise, against the ε of a single share.

**Noise.** What was sent, less the canary's part, is held against the law of a share: as many of
them as are charged for must add up to the variance that is charged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.noise_law import measured, of_integers
from secure_fl.audit.checks.verdicts import SHARE, Findings
from secure_fl.audit.game import LEAST_CANARIES, Claim, SealedAssignment, all_bounds
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.data.partitions import ClientData
from secure_fl.federation.asks import SumFeatures, SumMoments
from secure_fl.federation.local.local import Local
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.claims import Adversary
from secure_fl.privacy.events import Event, IntegerEvent
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource

_CANARIES = {Depth.MINUTES: LEAST_CANARIES, Depth.HOUR: 3000, Depth.NIGHT: 10_000}
_PLACES = 4
"""Examples that a client of the game has, as everybody knows."""
_FIELDS = 4000
"""Fields of an answer whose noise is looked at, at most."""
_ERROR = 5 * SHARE
"""Of one bound."""
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
        """By the number of canaries: each is in one answer of either kind."""
        return 10 + 2 * _CANARIES[depth] * 0.025

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

    def example(self, rng: np.random.Generator) -> tuple[ClientData, Tensor]:
        """A client, and one of its examples."""
        client = self.clients[int(rng.integers(len(self.clients)))]
        return client, client.train.x[int(rng.integers(len(client.train)))]

    def part(self, ask: Ask, client: ClientData, x: Tensor) -> Tensor:
        """What one example adds, without noise and count; float64."""
        total = Local(_with(client, x), self.bench).moments.total(ask)
        return total[:-1].double()

    def sent(self, ask: Ask, client: ClientData, x: Tensor | None) -> tuple[Tensor, Event]:
        """A client's answer, without the count, and what it charges for it."""
        local = Local(_with(client, x), self.bench)
        releasing = Releasing(client.id, NoiseSource.fresh(), ReleaseBox(None))
        protection = ExampleLevel(local, releasing)
        (charged,) = protection.releases(ask, 0)
        return protection.sum_examples(ask)[:-1].double(), charged.event


def _with(client: ClientData, x: Tensor | None) -> ClientData:
    """The client with this example in the first of its places, and nobody in the others."""
    own = client.train
    rows = torch.full((_PLACES, *own.x.shape[1:]), torch.nan)
    if x is not None:
        rows[0] = x
    data = replace(own, x=rows, y=own.y[:1].expand(_PLACES).clone(), client=None)
    return replace(client, train=replace(data, split=None, group=None))


def _game(
    sender: _Sender, ask: Ask, number: int, canaries: int, rng: np.random.Generator, found: Findings
) -> None:
    """Play it, and take in what it shows."""
    name = ("centre", "moments")[number]
    assignment = SealedAssignment.draw(canaries)
    assignment.seal()
    there = np.zeros(canaries, bool)
    there[assignment.included] = True
    scores, noise, charged, longest = np.empty(canaries), list[Tensor](), set[Event](), 0.0
    for place, coin in enumerate(there.tolist()):
        client, x = sender.example(rng)
        own = sender.part(ask, client, x)
        answer, event = sender.sent(ask, client, x if coin else None)
        charged.add(event)
        length = float(own.norm())
        scores[place] = float(answer @ own) / max(length, 1e-12)
        noise.append((answer - own if coin else answer)[:_FIELDS])
        longest = max(longest, length)
    found.exact(len(charged) == 1, f"the {name} is charged in several ways")
    event = next(iter(charged))
    if not isinstance(event, IntegerEvent):
        found.exact(False, f"the {name} is charged as what it is not")
        return
    found.exact(longest <= event.l2, f"an example adds {longest:.5g} steps, {event.l2:g} charged")
    _judge(sender, name, torch.cat(noise), event, found)
    if found.broken:
        return
    share, delta = event.own_share(), sender.config.privacy.delta
    claimed = epsilon([share], delta, Adjacency.ZERO_OUT)
    claim = Claim(claimed, delta, (event.l2, share.variance**0.5))
    bounds = all_bounds(scores, assignment.open(scores), claim, 1 - _ERROR, _ERROR)
    found.game(bounds, claimed, 1 - _ERROR, name)
    told = f"shift by one example of the {name}, in deviations"
    found.shift(bounds, told, event.l2 / share.variance**0.5)


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
