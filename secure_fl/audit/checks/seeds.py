"""Does anything that must be drawn anew come twice: noise, sampling coins, masks, encryptions?

Rounds are played again by the run's own parties (`rounds_again`) while the generators are watched:
the first words of every stream of noise and coins that was handed out, the seed of every mask, and
the seed of every ciphertext, over rounds, blocks, clients, and a process that goes on where another
was stopped. No two may be alike, but for the two ends of a pair's mask, in one block of one round
and with opposite signs. Shares of noise are also compared by their correlation, which finds one
that is another's with its sign turned, or shifted. What streams are made of is followed from the
operating system to their words: no key may be narrower than it looks.

A release that was made before a process was stopped must come out of the next one as it was, bit
for bit, and be charged once: two answers of fresh noise to one question protect less than one.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast
from unittest.mock import patch

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from secure_fl.audit.bounds.result import Vector
from secure_fl.audit.check import Depth
from secure_fl.audit.checks.noise_sources import NoiseDrawn, watched_noise
from secure_fl.audit.checks.rounds_again import Given, Phase, RoundsAgain, flat, phases, rounds_of
from secure_fl.audit.checks.verdicts import Findings
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.crypto.key_streams import Terms, expand
from secure_fl.data.dataset import Dataset
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.federation.asks import GiveCentre, GiveSketch, SumFeatures
from secure_fl.federation.client import Client
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import Place
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.he.encryptor import Ciphertext, Encryptor
from secure_fl.privacy.claims import Adversary
from secure_fl.privacy.noise import NoiseSource
from secure_fl.privacy.private_sketch import PrivateSketch
from secure_fl.secure_sum.client import RoundClient

Sketched = Literal["sketch"]
_ROUNDS = {Depth.MINUTES: 3, Depth.HOUR: 8, Depth.NIGHT: 32}
_HEAD = 4
"""Words of a mask that are compared. Of noise and coins it is one: of ten thousand streams two are
alike there by chance once in 10^11.
"""
_MOST_CLIENTS = 64
"""Whose streams at example level are compared."""
_EXAMPLES = 48
"""That a client trains on which is stopped."""
_WIDTH = 1024
_SIDE_BY_SIDE = 64
"""Blocks of noise that are compared pair by pair, about."""
_PURPOSES = ("", "a", "aa", "a/1", "a/11", "noise", "noise ")


@dataclass(frozen=True)
class Seeds:
    """The check `seeds`."""

    name: str = "seeds"
    tried: str = "whether noise, coins, masks or encryptions come twice"

    def refused(self, subject: Subject) -> str:
        """Where nothing is drawn that must be secret."""
        config = subject.config
        open_run = config.security.protection == "plain" and config.privacy.unit == "none"
        if open_run and not config.noises_sketches:
            return "the run neither hides nor noises anything"
        return "" if phases(subject) else "the run sums no updates"

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """By the rounds that are played."""
        clients = subject.config.partition.clients or 8
        return 3 + (2 * _ROUNDS[depth] + 1) * 0.05 * clients

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        """Play rounds and watch; then stop a client, and go on."""
        found = Findings()
        with watched() as drawn:
            for phase in phases(subject):
                _uncorrelated(_played(subject, phase, _ROUNDS[depth], seed), found)
            _of_everybody(subject, _ROUNDS[depth], seed)
            progress(0.6)
            _gone_on(subject, found)
            progress(0.9)
            _by_purpose()
        counts = drawn.judge(found)
        found.figures += [Figure(name, count) for name, count in counts]
        held = "; ".join(f"{count} {name}, all different" for name, count in counts)
        return found.outcome(self, Adversary.COLLUSION, "", held)


@dataclass
class Drawn:
    """What generators gave while they were watched.

    Attributes:
        noise: streams of noise and coins.
        masks: by the first words of a mask: who used it, and for what.
        ciphers: seeds of ciphertexts.
        keys: seeds of masks, by what they are.
    """

    noise: NoiseDrawn
    masks: defaultdict[bytes, list[_Use]] = field(default_factory=lambda: defaultdict(list))
    ciphers: list[bytes] = field(default_factory=list)
    keys: defaultdict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))

    def judge(self, found: Findings) -> list[tuple[str, int]]:
        """Whether anything came twice, or is narrower than it looks; how many there were."""
        words = list(self.noise.words.values())
        found.exact(len(set(words)) == len(words), "a stream of noise or coins came twice")
        alone = all(_fair(uses) for uses in self.masks.values())
        found.exact(alone, "a mask came twice: the difference of two vectors is open")
        found.exact(len(set(self.ciphers)) == len(self.ciphers), "a ciphertext's seed came twice")
        for narrowed in sorted(self.noise.narrowed):
            found.exact(False, narrowed)
        for name, keys in (self.keys | self.noise.keys).items():
            found.test(_fixed(keys), f"{name} hold a byte that is the same in all of them")
        counts = [("streams of noise and coins", len(words)), ("masks", len(self.masks))]
        return [each for each in [*counts, ("ciphertexts", len(self.ciphers))] if each[1]]


def _fixed(keys: Collection[bytes]) -> float:
    """P(that some byte is the same in all keys), or 1 where none is."""
    rows = np.array([list(key) for key in keys])
    fixed = bool((rows == rows[0]).all(0).any())
    return min(1.0, rows.shape[1] * 256.0 ** (1 - len(rows))) if fixed else 1.0


class _Use(NamedTuple):
    """One use of a mask: where, by whom, with which sign, and whether it is the client's own."""

    round: int
    block: int
    client: str
    sign: int
    own: bool


def _fair(uses: Sequence[_Use]) -> bool:
    """Whether a mask was used once by its client, or once by each of a pair, to cancel."""
    if len(uses) == 1:
        return True
    one, other = uses[0], uses[-1]
    pair = len(uses) == 2 and not one.own and not other.own
    here = (one.round, one.block) == (other.round, other.block)
    return pair and here and one.client != other.client and one.sign == -other.sign


@contextmanager
def watched() -> Iterator[Drawn]:
    """Watch this process' generators; what they give is not changed."""
    mask_terms, ciphertext = RoundClient._mask_terms, Encryptor.ciphertext
    with ExitStack() as patches:
        drawn = Drawn(patches.enter_context(watched_noise()))

        def of_masks(self: RoundClient, block: int) -> Terms:
            terms = mask_terms(self, block)
            for place, (seed, sign) in enumerate(terms):
                use = _Use(self.plan.round, block, self.name, sign, place == 0)
                drawn.keys["seeds of pairs' masks" if place else "seeds of own masks"].add(seed)
                drawn.masks[expand(seed, _HEAD).tobytes()].append(use)
            return terms

        def of_ciphers(self: Encryptor, plaintext: Any = None) -> Ciphertext:
            halves, seed = made = ciphertext(self, plaintext)
            drawn.ciphers.append(seed or halves[-1][:_HEAD].tobytes())
            return made

        patches.enter_context(patch.object(RoundClient, "_mask_terms", of_masks))
        patches.enter_context(patch.object(Encryptor, "ciphertext", of_ciphers))
        yield drawn


def _played(subject: Subject, phase: Phase, rounds: int, seed: int) -> list[Vector]:
    """Rounds of all clients; under client-level privacy each block of noise that one sent."""
    again, rng = RoundsAgain(subject, phase, width=_WIDTH), np.random.default_rng(seed)
    private, shares = again.step.updates.level is not None, list[Vector]()
    clients, pools = len(again.clients), again.step.updates.grid.pools
    same = rng.normal(size=sum(again.lengths)) / 1e3  # from everybody, in every round
    changes = torch.from_numpy(same).float().expand(clients, -1)
    for number in rounds_of(subject, phase, rounds, seed):
        again.go_to(number)
        played = again.play(Given(changes, [client % pools for client in range(clients)]))
        for one, sent in played.sent.items() if private else ():
            clean = again.clean(one, played.given, played.bound)
            shares += list((sent.pools - clean.pools).numpy().astype(float))
    return shares


def _uncorrelated(shares: Sequence[Vector], found: Findings) -> None:
    """No two blocks of noise are alike, nor one the other's with its sign turned, or moved."""
    if len(shares) < 2:
        return
    rows = np.stack(shares[:: -(-len(shares) // _SIDE_BY_SIDE)])
    lengths, width = np.linalg.norm(rows, axis=1, keepdims=True), rows.shape[1]
    waves = np.fft.rfft(rows / np.where(lengths > 0, lengths, 1.0), 2 * width)
    apart = 0.0
    for number, wave in enumerate(waves):
        moved = np.abs(np.fft.irfft(waves[number:] * wave.conj()))
        moved[0, 0] = 0.0  # of a block with itself, where it lies
        apart = max(apart, float(moved.max()))
    tried = len(rows) * (len(rows) + 1) * width
    chance = 2 * tried * float(ndtr(-apart * width**0.5))
    found.figures.append(Figure("largest correlation of two blocks of noise", apart))
    found.test(chance, f"two blocks of noise have a correlation of {apart:.2f}")


def _of_everybody(subject: Subject, rounds: int, seed: int) -> None:
    """Where each client's noise of its examples comes from: of training, of sums of view moments,
    and of its sketches.
    """
    config = subject.config
    if config.noises_moments:
        program = StepProgram(subject.factory, steps_of(subject.factory))
        engine = EmbeddedEngine(subject.clients, program, ReleaseBox(None))
        for client in engine.clients[:_MOST_CLIENTS]:
            client.protection.sum_examples(SumFeatures())
    for phase in phases(subject) if config.privacy.unit == "example" else ():
        again = RoundsAgain(subject, phase)
        numbers = rounds_of(subject, phase, rounds, seed)
        for client, number in product(again.clients[:_MOST_CLIENTS], numbers):
            ask = again.step.ask(again.state.at(Place(0, number)))
            own = cast("ExampleLevel", client.protection)
            own._releasing.stream(ask, phase, number).words(1)
    if config.noises_sketches:
        again = RoundsAgain(subject, phases(subject)[0])
        released = again.factory.sketch.released
        assert released is not None
        for client in again.clients[:_MOST_CLIENTS]:
            if released.centring:
                client.sketch.centre(GiveCentre())
            client.sketch.give(_sketch_of(released))


def _sketch_of(released: PrivateSketch) -> GiveSketch:
    return GiveSketch(torch.zeros(released.features) if released.centring else None)


# A process that goes on where another was stopped


def _gone_on(subject: Subject, found: Findings) -> None:
    """A client answers, is made again, and is asked the same: of every kind that is charged."""
    config = subject.config
    with tempfile.TemporaryDirectory() as name:
        kept = Path(name) / "state"
        with patch.dict(os.environ, {"SECURE_FL_STATE": str(kept)}):
            for phase in phases(subject) if config.privacy.unit != "none" else ():
                _asked_again(subject, phase, Path(name) / phase / "results", found)
            if config.noises_sketches:
                _asked_again(subject, "sketch", Path(name) / "sketch" / "results", found)


def _asked_again(subject: Subject, what: Phase | Sketched, folder: Path, found: Findings) -> None:
    """Two lives of one client, with one folder between them."""
    charged: list[str] = []
    first = _Life(subject, what, folder, charged)
    before = [first.answer(number) for number in range(2)]
    charged += first.keys
    second = _Life(subject, what, folder, charged)
    after = [second.answer(number) for number in range(2)]
    second.answer(2)
    same = all(map(torch.equal, before, after))
    found.exact(same, f"{what}: a release that was made came out anew")
    once = all(second.box.answers(key) == 1 for key in charged)
    found.exact(once, f"{what}: one release would be charged as several")


class _Life:
    """A client from when its process begins until it is stopped."""

    def __init__(
        self, subject: Subject, what: Phase | Sketched, folder: Path, charged: list[str]
    ) -> None:
        self.box, self._what = ReleaseBox(folder, None, lambda: charged), what
        self.keys: list[str] = []
        self._again = RoundsAgain(subject, phases(subject)[0] if what == "sketch" else what)
        data = subject.clients[0]
        few = replace(data, train=_few(data.train), test=_few(data.test))
        bench = Workbench(self._again.factory)
        noise = NoiseSource.fresh()
        self._client = Client.of(self._again.program, few, bench, noise, self.box)

    def answer(self, number: int) -> Tensor:
        """What it answers in a round; a sketch is the same in each."""
        state = self._again.state.at(Place(0, number))
        if self._what == "sketch":
            released = self._again.factory.sketch.released
            assert released is not None
            ask = _sketch_of(released)
            self.keys += [each.key for each in self._client.sketch.releases(ask)]
            return self._client.sketch.give(ask)
        self.keys += [each.key for each in self._client.releases(state, 0)]
        return torch.from_numpy(flat(self._client.answered(state, 0).blocks))


def _few(data: Dataset) -> Dataset:
    return data.take(torch.arange(min(_EXAMPLES, len(data))))


def _by_purpose() -> None:
    """Streams of one source, for names and numbers that are easily taken for each other."""
    source = NoiseSource.fresh()
    for client, number, purpose in product((0, 1, 256), (0, 1, 256), _PURPOSES):
        source.stream(client=client, round=number, purpose=purpose).words(1)


SEEDS = Seeds()
