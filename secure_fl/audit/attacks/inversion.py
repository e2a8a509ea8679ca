"""Gradient inversion of contrastive training: can an example be picked out of an update?

The attacker knows the model, the objective, the augmentation and a list of candidates, of which one
was trained on. He does not know the coins of the views, which views are a pair, or what else was in
the batch. `inversion_ranks` says how he names a candidate, `inversion_game` how that is scored.

**Defence off** is one client's plain update, by batch size and local steps. **Defence on** is what
this run shows of a round (`inversion_round`).

**Guarantee**: through the run's path each of the attacks is tested by itself, with half the
false-alarm rate; a run whose round shows no more of which candidate is in than its ε allows, or
without ε nothing, is called broken with probability 1e-3 at most, since the coin that decides comes
from the operating system. Sums without noise are held against chance, though nothing but their
size keeps them there: of a few dozen images they do show one, and are called broken.

**Assumes**: candidates that are in nobody's training examples are alike to the one that is in.

**Not covered**: rounds after the first; attackers who know the coins of views, which follow from
the run's seed where examples are not private; clusters' pools. That an attack fails is no proof: a
run's proof is its ε, and for sums without noise there is none.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from secure_fl.audit.attacks.inversion_cases import FEWEST, Attack, Played, Player, best
from secure_fl.audit.attacks.inversion_game import FALSE_ALARM, Guesses
from secure_fl.audit.attacks.inversion_images import Reconstruction, decibels, paired, picture
from secure_fl.audit.attacks.inversion_ranks import Gradients, Ranks, draws_within
from secure_fl.audit.attacks.inversion_round import AttackedRound
from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Figure, Outcome, Picture
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.data.views import batch_views
from secure_fl.objectives.objective import TwoViews
from secure_fl.privacy.claims import Adversary
from secure_fl.seeds import derive_seed, generator_of

OFF, ON = "defence off", "defence on"
_COMPARED = 4
"""Images of the batch at which attacks are compared, and local steps varied."""


@dataclass(frozen=True)
class Effort:
    """What one depth spends.

    Attributes:
        batches, steps: that are tried without a defence.
        cases: of each of them.
        shown: through the run's own path: a verdict of few would say little.
        seconds: that this may take, once it has had its fewest cases.
        pool: images that candidates are drawn from.
        preparing: seconds for views of them; `draws` are the most views of each.
        made: reconstructions; `iterations` of each.
    """

    batches: tuple[int, ...]
    steps: tuple[int, ...]
    cases: int
    shown: int
    seconds: float
    pool: int
    preparing: float
    draws: int
    made: int
    iterations: int


EFFORTS = {
    Depth.MINUTES: Effort((2, 4, 16), (5,), 20, 100, 24.0, 104, 5.0, 1024, 1, 40),
    Depth.HOUR: Effort(
        (2, 4, 8, 16, 32, 64), (2, 5, 10), 200, 600, 240.0, 256, 40.0, 1024, 30, 300
    ),
    Depth.NIGHT: Effort(
        (2, 4, 8, 16, 32, 64, 128), (2, 5, 10, 20), 1000, 3000, 1800.0, 512, 120.0, 2048, 100, 600
    ),
}


def no_views(config: FederationConfig) -> str:
    """Why a run has no updates of contrastive training; empty where it has."""
    if config.pretrain.mode != "federated":
        mode = config.pretrain.mode
        return f"clients send no updates of pre-training: pretrain.mode is {mode}"
    if not config.pretrain.trains:
        return "clients send sums of view moments, and no updates of pre-training"
    if config.objective.name == "masked":
        return "the objective has no views: objective.name is masked"
    return ""


@dataclass(frozen=True)
class Inversion:
    """The check."""

    name: str = "inversion"
    tried: str = (
        "whether somebody who sees what a round shows of a client's update picks the example "
        "that it was made of out of 100 candidates better than by chance, or than its ε allows"
    )

    def refused(self, subject: Subject) -> str:
        return no_views(subject.config)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        effort, clients = EFFORTS[depth], subject.config.partition.clients
        games = len(effort.batches) + len(effort.steps) + 1
        played = 0.05 * effort.cases * games + min(effort.seconds, 0.13 * effort.shown)
        return (
            effort.preparing * 1.5 + played + 0.04 * effort.made * effort.iterations + clients / 2
        )

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        effort = EFFORTS[depth]
        attacked = AttackedRound.of(subject, seed)
        if len(attacked.outside) < FEWEST:
            return self._outcome(attacked, _TOO_FEW, "not tried")
        trial = Trial.of(attacked, effort, seed)
        progress(0.2)
        trial.without_defence()
        progress(0.5)
        shown = trial.with_defence() if attacked.defended else None
        progress(0.9)
        trial.look()
        if shown is None:
            return self._outcome(attacked, trial.open_words, "not tried", trial)
        attacks = shown.guesses
        broken = any(each.above_claim(FALSE_ALARM / len(attacks)) for each in attacks.values())
        verdict = "broken" if broken else "held"
        return self._outcome(attacked, trial.words(attacks), verdict, trial)

    def _outcome(
        self,
        attacked: AttackedRound,
        said: str,
        verdict: str,
        trial: Trial | None = None,
    ) -> Outcome:
        unit = attacked.factory.facts.config.privacy.unit
        return Outcome(
            self.name,
            self.tried,
            Adversary.MODEL if attacked.sums_only else Adversary.SERVER,
            "client" if unit == "client" else "example",
            verdict,  # type: ignore[arg-type]
            said,
            FALSE_ALARM,
            figures=tuple(trial.figures) if trial else (),
            pictures=tuple(trial.pictures) if trial else (),
        )


@dataclass
class Trial:
    """One audit's cases and what came of them."""

    player: Player
    effort: Effort
    seed: int
    figures: list[Figure] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    compared: Guesses | None = None

    @classmethod
    def of(cls, attacked: AttackedRound, effort: Effort, seed: int) -> Trial:
        """With everything that the attacker prepares."""
        generator = generator_of(seed, "candidates")
        order = torch.randperm(len(attacked.outside), generator=generator)[: effort.pool]
        draws = draws_within(attacked, len(order), effort.preparing, effort.draws)
        ranks = Ranks(attacked, attacked.outside[order], draws, derive_seed(seed, "attacker"))
        return cls(Player(ranks, generator), effort, seed)

    @property
    def attacked(self) -> AttackedRound:
        """The round."""
        return self.player.ranks.attacked

    def without_defence(self) -> None:
        """Rates by batch size and local steps, from one client's plain update."""
        player, most = self.player, len(self.attacked.data.train) + 1
        for size in (each for each in self.effort.batches if each <= most):
            attacks: dict[str, Attack] = {"span": player.spanning(2 * size)}
            if size == _COMPARED:
                attacks["matching"] = player.ranks.by_matching
            played = player.play(self.effort.cases, player.plain(size, 1), attacks)
            self._tell(played, f"source picked from one step on {size} images", OFF)
            if size == _COMPARED:
                self.compared = played.guesses["span"]
                self._show("named by the span of a plain gradient of 4 images", played)
        for steps in self.effort.steps:
            attacks = {"span": player.spanning(2 * _COMPARED * steps)}
            played = player.play(self.effort.cases, player.plain(_COMPARED, steps), attacks)
            self._tell(played, f"source picked from {steps} steps on {_COMPARED} images", OFF)
        attacks = {"span": player.spanning(self._own_rows), "matching": player.ranks.by_matching}
        played = player.play(self.effort.cases, player.whole, attacks, self.effort.seconds / 6)
        steps, images = self.attacked.steps, len(self.attacked.data.train)
        what = f"source picked from a client's round, {steps} steps on {images} images"
        self._tell(played, what, OFF)

    def with_defence(self) -> Played:
        """Rates through the run's own path, by both attacks."""
        player, effort = self.player, self.effort
        attacks: dict[str, Attack] = {
            "span": player.spanning(self.attacked.rows),
            "matching": player.ranks.by_matching,
        }
        played = player.play(effort.shown, player.shown, attacks, effort.seconds)
        played = player.claimed(played)
        self._tell(played, "source picked from what the run shows of a round", ON)
        self._show("named from what the run shows of a round", played)
        return played

    def look(self) -> None:
        """Reconstructions: without a defence, and through the run's own path."""
        player, size = self.player, 2
        played = [self._optimised(size, number) for number in range(self.effort.made)]
        guesses = Guesses(sum(hit for hit, _ in played), len(played), player.candidates)
        name = f"source picked from one step on {size} images, reconstruction"
        self.figures.append(guesses.figure(name, OFF))
        mean = sum(quality for _, quality in played) / len(played)
        name = f"PSNR of views from one step on {size} images, dB"
        self.figures.append(Figure(name, mean, setting=OFF))
        if self.attacked.defended:
            source = player.ranks.images[:1]
            observed = player.shown(source[0], self.seed)
            made = self._made(observed, self.attacked.rows, -1)
            self._add("an example, and what the run's path gave back", [source, made])

    def _optimised(self, size: int, number: int) -> tuple[bool, float]:
        """Whether images made of a plain gradient name the source, and their mean PSNR."""
        player, ranks = self.player, self.player.ranks
        among = torch.randperm(len(ranks.images), generator=player.generator)
        among, place = among[: player.candidates], secrets.randbelow(player.candidates)
        batch = player.batch(ranks.images[among[place]], size)
        views = batch_views(self.attacked.factory.augment, batch, player.number(1 << 40))
        gradients = ranks.gradients_of(TwoViews(*views), keep=False)
        true, made = torch.cat(views), self._made(gradients, 2 * size, number)
        ordered = paired(made, true)
        if number == 0:
            self._add(f"views of {size} images, and what a plain gradient gave", [true, ordered])
        hit = best(ranks.by_nearest(made, among)) == place
        return hit, float(decibels(ordered, true).mean())

    def _made(self, gradients: Gradients, rows: int, number: int) -> Tensor:
        how = Reconstruction(2, self.effort.iterations)
        return how.run(self.player.ranks, gradients, rows, derive_seed(self.seed, "made", number))

    @property
    def _own_rows(self) -> int:
        return 2 * self.attacked.spec.epochs * len(self.attacked.data.train)

    def _tell(self, played: Played, name: str, setting: str) -> None:
        parts = len(played.guesses)
        for attack, guesses in played.guesses.items():
            limit = guesses.allowed(FALSE_ALARM / parts) if setting == ON else None
            self.figures.append(guesses.figure(f"{name}, {attack}", setting, limit))

    def _show(self, said: str, played: Played) -> None:
        self._add(f"examples that went in, and those {said}", [played.sources, played.named])

    def _add(self, said: str, rows: list[Tensor]) -> None:
        made = picture(said, rows)
        self.pictures += [] if made is None else [made]

    def words(self, attacks: dict[str, Guesses]) -> str:
        """What was seen through the run's path, and without a defence."""
        told = ", ".join(f"{each.right} of {each.cases} by {by}" for by, each in attacks.items())
        one = next(iter(attacks.values()))
        said = f"through the run's path the source was named in {told} (chance {one.chance:.1%}, "
        said += f"its ε allows {one.claimed:.1%}); "
        return said + self.plainly

    @property
    def plainly(self) -> str:
        """What a plain gradient shows."""
        if self.compared is None:
            return "a client has too few images for a plain gradient of 4"
        return f"from a plain gradient of {_COMPARED} images in {self.compared.rate:.0%} of cases"

    @property
    def open_words(self) -> str:
        """Of a run that hides nothing."""
        said = "nothing hides a client's update in this run, so there is no claim to test; the "
        return said + f"source was named {self.plainly}"


_TOO_FEW = f"fewer than {FEWEST} examples that nobody trains on: no candidates to choose among"
INVERSION = Inversion()
