"""Cases of the game, played against a plain gradient and through what a run shows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import process_time

import torch
from torch import Generator, Tensor

from secure_fl.audit.attacks.inversion_game import Guesses
from secure_fl.audit.attacks.inversion_ranks import Gradients, Ranks
from secure_fl.seeds import derive_seed

Attack = Callable[[Gradients, Tensor], Tensor]
"""(what was observed, numbers of the candidates) -> a score of each."""
Observe = Callable[[Tensor, int], Gradients]
"""(the source, a seed) -> what is observed of it."""
MOST = 100
FEWEST = 20
"""Candidates of a case; with fewer than these the game says nothing."""


@dataclass(frozen=True)
class Played:
    """What came of a row of cases.

    Attributes:
        guesses: by attack.
        sources, named: of the first cases, images that went in, and those that the first attack
            named.
    """

    guesses: dict[str, Guesses]
    sources: Tensor = field(repr=False)
    named: Tensor = field(repr=False)


@dataclass(frozen=True)
class Player:
    """Draws cases and plays them.

    Attributes:
        ranks: what the attacker has prepared.
        generator: of candidates, and of what stands beside the source. Which candidate is the
            source comes from the operating system.
    """

    ranks: Ranks
    generator: Generator

    @property
    def candidates(self) -> int:
        """Of each case."""
        return min(MOST, len(self.ranks.images))

    def play(
        self, cases: int, observe: Observe, attacks: Mapping[str, Attack], seconds: float = 1e9
    ) -> Played:
        """At most so many cases, at least 12, and as few as fit into `seconds`: of processor
        time: which is read off the clock alone.
        """
        right, begun, count = dict.fromkeys(attacks, 0), process_time(), 0
        shown: list[tuple[int, int]] = []
        while count < cases and (count < 12 or process_time() - begun < seconds):
            among = torch.randperm(len(self.ranks.images), generator=self.generator)
            among, source = among[: self.candidates], secrets.randbelow(self.candidates)
            seed = derive_seed(self.number(1 << 40), "case")
            observed = observe(self.ranks.images[among[source]], seed)
            named = {name: best(attack(observed, among)) for name, attack in attacks.items()}
            for name, place in named.items():
                right[name] += place == source
            shown.append((int(among[source]), int(among[next(iter(named.values()))])))
            count += 1
        numbers = torch.tensor(shown[:8])
        found = {name: Guesses(hits, count, self.candidates) for name, hits in right.items()}
        images = self.ranks.images
        return Played(found, images[numbers[:, 0]], images[numbers[:, 1]])

    def number(self, below: int) -> int:
        """A whole number from 0 on."""
        return int(torch.randint(below, (1,), generator=self.generator))

    def batch(self, source: Tensor, size: int) -> Tensor:
        """The source and `size - 1` other images of the client."""
        own = self.ranks.attacked.data.train.x
        others = torch.randperm(len(own), generator=self.generator)[: size - 1]
        return torch.cat([source[None], own[others]])

    def plain(self, size: int, steps: int) -> Observe:
        """So many steps of ordinary training on a batch of `size`."""
        attacked = self.ranks.attacked

        def observe(source: Tensor, seed: int) -> Gradients:
            return attacked.gradients(attacked.plain(self.batch(source, size), steps, seed), steps)

        return observe

    def claimed(self, played: Played) -> Played:
        """Cases of `shown`, held against what the run's round is charged for."""
        round_, delta = self.ranks.attacked, self.ranks.attacked.factory.facts.config.privacy.delta
        found = {
            name: replace(each, epsilon=round_.epsilon, delta=delta if round_.epsilon else 0.0)
            for name, each in played.guesses.items()
        }
        return replace(played, guesses=found)

    def whole(self, source: Tensor, seed: int) -> Gradients:
        """All of the client's local training without a defence."""
        attacked = self.ranks.attacked
        row = self.number(len(attacked.data.train))
        return attacked.gradients(attacked.whole(source, row, seed), attacked.steps)

    def shown(self, source: Tensor, seed: int) -> Gradients:
        """What the run shows of the client's round; its coins are its own."""
        attacked = self.ranks.attacked
        row = self.number(len(attacked.data.train))
        return attacked.gradients(attacked.seen(source, row), attacked.steps)

    def spanning(self, rows: int) -> Attack:
        """The attack by the span of so many rows."""
        return lambda observed, among: self.ranks.by_span(observed, rows, among)


def best(scores: Tensor) -> int:
    """Place of the largest score; one that is no number is never it."""
    return int(scores.nan_to_num(nan=-torch.inf).argmax())
