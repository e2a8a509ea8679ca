"""Examples in closed form out of a first linear layer's gradient: the run's own, and one that a
malicious server has put there (`imprint`).

**Defence off** is one step of plain training; **defence on** what the run shows of a round
(`inversion_round`). A figure is the share of views that went in and came out with less than 30 dB
of noise: the encoder is watched, so what went in is known. The verdict is the game of `inversion`,
played with these views instead of the span.

The run's own layer is read where it has a bias. A convolution's rows see patches: their quotient is
a mean patch, which is no example, and is shown nowhere. A malicious model is not part of the claim
without differential privacy, for what stops it is not the sum, out of which it reads most views of
a small cohort: nobody but the clients sets their models. Each applies the opened sum itself to a
state that it holds or gets sealed, and t signed digests of that state must agree with its own
before the next round, so that a changed weight ends the run (checks `liar` and `cohort` try). With
ε the claim holds for every model.

**Guarantee**: an honest run is called broken with probability 1e-3 at most, as in `inversion`.

**Not covered**: later layers; a malicious model that is crafted against clipping; rounds after the
first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from secure_fl.audit.attacks.imprint import Imprint, Watched, between, first_layer, quotients, whole
from secure_fl.audit.attacks.inversion import OFF, ON, no_views
from secure_fl.audit.attacks.inversion_cases import FEWEST, Attack, Player
from secure_fl.audit.attacks.inversion_game import FALSE_ALARM, Guesses
from secure_fl.audit.attacks.inversion_images import paired, picture
from secure_fl.audit.attacks.inversion_ranks import Gradients, Ranks
from secure_fl.audit.attacks.inversion_round import AttackedRound
from secure_fl.audit.attacks.rates import share
from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Figure, Outcome, Picture, Verdict
from secure_fl.audit.subject import Subject
from secure_fl.privacy.claims import Adversary
from secure_fl.seeds import derive_seed, generator_of

NEAR = 30.0
"""Decibels from which on an image counts as recovered."""
_BATCHES = (2, 16, 64)
_BINS = 512
_CASES = {
    Depth.MINUTES: (40, 5.0, 96),
    Depth.HOUR: (200, 120.0, 192),
    Depth.NIGHT: (500, 900.0, 512),
}
"""Of the game, the seconds they may take, and views of each candidate."""
_STOPS = (
    "clients apply sums themselves, to a state whose signed digests must agree, so nobody else "
    "can put such a layer into their model"
)


@dataclass(frozen=True)
class Leak:
    """One layer that is read, in a round of its own.

    Attributes:
        name: whose layer it is.
        attacked: the run's round, with the encoder watched.
        layer: name of the layer in the model.
        reads: its gradient's weight and bias -> examples.
        kept: what went into the encoder since it was last cleared.
    """

    name: str
    attacked: AttackedRound
    layer: str
    reads: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    kept: list[Tensor] = field(repr=False)

    def made(self, gradients: Gradients) -> Tensor:
        """Examples `[rows, ...]`, in no order and mostly of several at once."""
        found = self.reads(
            *(gradients[f"{self.layer}.{part}"].cpu() for part in ("weight", "bias"))
        )
        return found.view(-1, *self.attacked.data.train.x.shape[1:])

    def recovered(self, gradients: Gradients) -> tuple[int, int]:
        """How many of the views that went in came out, and how many went in."""
        true, made = torch.cat(self.kept), self.made(gradients)
        return int((nearest(made, true) > NEAR).sum()), len(true)

    def plainly(self, player: Player, size: int) -> Gradients:
        """What one step of plain training on `size` images gives."""
        source = player.ranks.images[player.number(len(player.ranks.images))]
        self.kept.clear()
        return player.plain(size, 1)(source, player.number(1 << 40))

    def shown(self, player: Player) -> Gradients:
        """What the run shows of a round; only the client's own views are kept."""
        source = player.ranks.images[0]
        player.shown(source, 0)  # everybody else's summands are made once, and in this one
        self.kept.clear()
        return player.shown(source, 0)

    @cached_property
    def claimed(self) -> bool:
        """Whether the claim covers this layer: the run's own always, any other under ε."""
        unit = self.attacked.factory.facts.config.privacy.unit
        return self.attacked.defended and (self.reads is quotients or unit != "none")


def nearest(made: Tensor, true: Tensor) -> Tensor:
    """Decibels of the nearest of `made` to each of `true` `[N, ...]`."""
    if not len(made):
        return torch.full((len(true),), -torch.inf)
    apart = torch.cdist(true.flatten(1).double(), made.flatten(1).double())
    error = apart.amin(1).square() / true[0].numel()
    return -10 * error.clamp_min(1e-10).log10()


def leaks(subject: Subject, seed: int) -> list[Leak]:
    """The run's own first layer, where it sees whole examples and has a bias, and an imprint."""
    factory, kept = subject.factory, list[Tensor]()
    outside = AttackedRound.of(subject, seed).outside
    found = first_layer(factory.encoder())
    layers: list[tuple[str, str, Callable[[Tensor, Tensor], Tensor]]] = []
    if found is not None and whole(found[1], factory.facts.shape):
        layers.append(("own first layer", f"encoder.inner.{found[0]}", quotients))
    layers.append(("malicious first layer", "encoder.inner.bins", between))

    def own(number: int) -> nn.Module:
        return Watched(factory.encoder(number).cpu(), kept.append)

    def malicious(number: int) -> nn.Module:
        inner = Imprint(factory.encoder(number).cpu(), outside, _BINS, derive_seed(seed, "bins"))
        return Watched(inner, kept.append)

    made = []
    for name, layer, reads in layers:
        # of no folder: the run's examples were compared above, and its encoder is not this one
        encoder = own if reads is quotients else malicious
        other = replace(subject, folder=None, encoder=encoder)
        made.append(Leak(name, AttackedRound.of(other, seed), layer, reads, kept))
    return made


@dataclass(frozen=True)
class FirstLayer:
    """The check."""

    name: str = "first-layer"
    tried: str = (
        "whether somebody who sees what a round shows of a client's update reads examples out of "
        "the gradient of the first linear layer, the run's own or a malicious server's"
    )

    def refused(self, subject: Subject) -> str:
        return no_views(subject.config)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 2 * _CASES[depth][1] + 6 + subject.config.partition.clients / 2

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        parts = leaks(subject, seed)
        figures, pictures, guessed = list[Figure](), list[Picture](), dict[str, Guesses]()
        few = len(parts[0].attacked.outside) < FEWEST
        for number, leak in enumerate([] if few else parts):
            player = _player(leak, depth, seed)
            figures += _shares(leak, player)
            pictures += _pictures(leak, player)
            if leak.claimed:
                guessed[leak.name] = _game(leak, player, depth)
            progress((number + 1) / len(parts))
        limit = FALSE_ALARM / max(1, len(guessed))
        for name, each in guessed.items():
            named = f"source picked from what the run shows of a round, {name}"
            figures.append(each.figure(named, ON, each.allowed(limit)))
        verdict: Verdict = "held" if guessed else "not tried"
        if any(each.above_claim(limit) for each in guessed.values()):
            verdict = "broken"
        attacked = parts[0].attacked
        return Outcome(
            self.name,
            self.tried,
            Adversary.MODEL if attacked.sums_only else Adversary.SERVER,
            "client" if subject.config.privacy.unit == "client" else "example",
            verdict,
            _said(guessed, figures, few=few),
            FALSE_ALARM,
            figures=tuple(figures),
            pictures=tuple(pictures),
        )


def _player(leak: Leak, depth: Depth, seed: int) -> Player:
    generator, outside = generator_of(seed, "first layer"), leak.attacked.outside
    order = torch.randperm(len(outside), generator=generator)[:128]
    draws = _CASES[depth][2]
    ranks = Ranks(leak.attacked, outside[order], draws, derive_seed(seed, "attacker"))
    return Player(ranks, generator)


def _shares(leak: Leak, player: Player) -> list[Figure]:
    """Shares of views recovered without a defence, by batch, and through the run's own path."""
    most, made = len(leak.attacked.data.train) + 1, list[Figure]()
    for size in (each for each in _BATCHES if each <= most):
        found = share(*leak.recovered(leak.plainly(player, size)))
        name = f"views recovered from one step on {size} images, {leak.name}"
        made.append(Figure(name, *found, setting=OFF))
    if leak.attacked.defended:
        found = share(*leak.recovered(leak.shown(player)))
        name = f"views recovered from what the run shows of a round, {leak.name}"
        made.append(Figure(name, *found, setting=ON))
    return made


def _pictures(leak: Leak, player: Player) -> list[Picture]:
    """Views of four images, and what a plain gradient gave back."""
    gradients = leak.plainly(player, min(4, len(leak.attacked.data.train) + 1))
    true, made = torch.cat(leak.kept), leak.made(gradients)
    if len(made) < len(true):
        return []
    said = f"views that went into one plain step, and those read out of the {leak.name}"
    shown = picture(said, [true, paired(made, true)])
    return [] if shown is None else [shown]


def _game(leak: Leak, player: Player, depth: Depth) -> Guesses:
    cases, seconds, _ = _CASES[depth]

    def reading(observed: Gradients, among: Tensor) -> Tensor:
        made = leak.made(observed)
        return player.ranks.by_nearest(made, among) if len(made) else torch.zeros(len(among))

    attacks: dict[str, Attack] = {"reading": reading}
    played = player.claimed(player.play(cases, player.shown, attacks, seconds))
    return played.guesses["reading"]


def _said(guessed: dict[str, Guesses], figures: list[Figure], *, few: bool) -> str:
    if few:
        return f"fewer than {FEWEST} examples that nobody trains on: no candidates to choose among"
    told = [f"{each.right} of {each.cases} sources named by {by}" for by, each in guessed.items()]
    if not told:
        told.append("no layer that is read falls under a claim: a malicious one does under ε alone")
    plain = max(each.value for each in figures if each.setting == OFF)
    told.append(f"without a defence up to {plain:.0%} of views were read out of a gradient")
    return "; ".join([*told, _STOPS])


FIRST_LAYER = FirstLayer()
