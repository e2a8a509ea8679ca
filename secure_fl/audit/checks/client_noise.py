"""Client-level canaries through everything that an update goes through: the codec, each client's
share of noise, masks, encryption, the opening, and what models make of it.

**The game.** A canary is a client in one round. By its coin its update is a unit vector at the
norm bound, or nothing (under replace-one: the opposite vector). Whoever has the opened sum, and
took out of it the shares of those whom the noise does not count on, scores it by the length along
that vector. So every canary moves the release as far as a client can, and each is in one release
only: a thousand of them take a thousand divided by the cohort rounds, with fresh noise each. All
releases together have the guarantee of one for each single coin (`audit.bounds.looks`), and ε is
held against what the ledger charges for one.

**Directions.** In every second round they are coordinates; in the others random and orthonormal.
Noise of independent coordinates and one variance has independent scores along either, so several
canaries of a round do not disturb each other, and each client's update is at the bound, never
beyond it. (To give one client m canaries, each 1/√m of the bound long, would show nothing more:
the error of the shift of a whole client is 2/√releases, however its length is divided.)

**Noise.** Apart from the game, each client's share is what it sent less what its update is without
noise. It is held against the law that is charged, the opened sum against the sum of what was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secure_fl.audit.bounds.result import Vector
from secure_fl.audit.check import Depth
from secure_fl.audit.checks.every_round import noise_of_every_round
from secure_fl.audit.checks.noise_law import measured, of_integers
from secure_fl.audit.checks.rounds_again import (
    BEYOND,
    Given,
    Phase,
    Played,
    RoundsAgain,
    certain,
    flat,
    phases,
    rounds_of,
)
from secure_fl.audit.checks.verdicts import SHARE, Findings
from secure_fl.audit.game import LEAST_CANARIES, Claim, SealedAssignment, all_bounds
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.claims import Adversary
from secure_fl.privacy.events import Event, IntegerEvent
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.secure_sum.grid import Blocks

_CANARIES = {Depth.MINUTES: LEAST_CANARIES, Depth.HOUR: 5000, Depth.NIGHT: 20_000}
_WIDTH = {Depth.MINUTES: 1024, Depth.HOUR: 8190, Depth.NIGHT: 8190}
"""Fields of a block in the game: one ciphertext. Whole vectors are sent before it."""
_WHOLE_ROUNDS = 2
_MOST_FIELDS = 1 << 24
"""Of all clients in one round of whole vectors: 128 MiB."""
_SECONDS = 0.03
"""A client's part of a round, roughly."""
_CONFIDENCE = 1 - 10 * SHARE


@dataclass(frozen=True)
class ClientNoise:
    """The check `client-noise`."""

    name: str = "client-noise"
    tried: str = (
        "whether an opened sum tells if a client took part, better than the ε that is charged "
        "allows, and whether its noise is narrower or of another law"
    )

    def refused(self, subject: Subject) -> str:
        """Where no client-level noise is claimed."""
        return client_level_only(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """By the number of canaries: each takes part in one round."""
        rounds = _CANARIES[depth] + 2 * _WHOLE_ROUNDS * (subject.config.partition.clients or 8)
        return 3 + _SECONDS * rounds

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        """Whole vectors first, of every step; the game, of one, only where these hold."""
        found = Findings()
        rng = np.random.default_rng(seed)
        for phase in phases(subject):
            noise_of_every_round(subject, phase, depth, seed, found)
            played = rounds_of(subject, phase, _WHOLE_ROUNDS, seed)
            _whole_vectors(_whole(subject, phase), subject, played, rng, found)
        progress(0.1)
        canaries = 0
        if not found.broken:
            again = RoundsAgain(subject, phases(subject)[0], width=_WIDTH[depth])
            canaries = _game(again, _CANARIES[depth], rng, found, progress)
        held = f"{canaries} canaries, and every client's share of the noise, are as charged"
        return found.outcome(self, Adversary.MODEL, "client", held)


def client_level_only(subject: Subject) -> str:
    """Why a check of client-level noise is refused; empty where it is not."""
    if subject.config.privacy.unit != "client":
        return "the run claims nothing for a whole client: privacy.unit is not client"
    return "" if phases(subject) else "the run sums no updates"


# Whole vectors


def _whole(subject: Subject, phase: Phase) -> RoundsAgain:
    """Rounds of all fields, or of as many as memory is for."""
    pools = subject.config.pools.count if phase == "cluster" else 1
    return RoundsAgain(subject, phase, width=_MOST_FIELDS // (len(subject.clients) * pools) + 1)


def _whole_vectors(
    again: RoundsAgain,
    subject: Subject,
    numbers: Sequence[int],
    rng: np.random.Generator,
    found: Findings,
) -> None:
    """Rounds of random updates in full width: shares, their law, the sum, and what is charged."""
    level, phase = again.level, again.phase
    shares, views = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for number in numbers:
        again.go_to(number)
        played = again.play(Given(again.sure(rng), [0] * len(again.clients)))
        clean = {each: again.clean(each, played.given, played.bound) for each in played.sent}
        own = {each: flat(played.sent[each]) - flat(clean[each]) for each in clean}
        shares += own.values()
        helpers = _left_out(again, list(own))
        views.append(opened_of(played) - _sum(clean, played) - _open(again, helpers, own, played))
        _check_opening(again, played, found)
        _check_charge(again, subject, played, clean, found)
    honest, kind = level.variance / certain(again), level.kind
    drawn = np.concatenate(shares)
    found.noise(measured(f"all shares, {phase}", drawn.astype(float), honest))
    each = [measured("one share", share.astype(float), honest) for share in shares]
    least = min(each, key=lambda seen: seen.p_narrow)
    found.test(len(each) * least.p_narrow, f"a share has {least.ratio:.3g} of its variance")
    otherwise = f"shares of noise are not of the {kind} law that is charged"
    found.test(of_integers(drawn, kind, honest), otherwise)
    view = np.concatenate(views).astype(float)
    found.noise(measured(f"the opened sum, certain shares alone, {phase}", view, level.variance))


def _check_opening(again: RoundsAgain, played: Played, found: Findings) -> None:
    """What was opened is the sum of what was sent, in whole numbers, and models move by it."""
    level, total = again.level, played.opened.total
    same = np.array_equal(opened_of(played), _where_open(played, flat(played.total)))
    found.exact(same, "the opened sum is not the sum of what clients sent")
    head = level.open_head(total.head, played.opened.survivors)
    step = (level.bound if played.bound is None else played.bound) / level.levels
    least = level.minimum if level.pools > 1 else 1
    means = total.pools.double() * step / head.counts.clamp_min(least)[:, None]
    moved = torch.where(head.passing[:, None], means, 0.0)
    close = torch.allclose(played.moved.pooled, moved, rtol=1e-12, atol=0)
    found.exact(close, "models do not move by the opened sum")


def _check_charge(
    again: RoundsAgain,
    subject: Subject,
    played: Played,
    clean: dict[int, Blocks],
    found: Findings,
) -> None:
    """What is charged is this mechanism: its variance, and a sensitivity no vector exceeds."""
    for release in played.charged:
        event, level = release.event, again.level
        if not isinstance(event, IntegerEvent):
            found.exact(False, "what is charged is no integer noise")
            continue
        counted = event.variance <= level.variance and event.parties <= certain(again)
        found.exact(counted, "more noise is charged for than is certain to be there")
        longest = max(float(np.linalg.norm(flat(each).astype(float))) for each in clean.values())
        found.exact(longest <= event.l2, "a client's vector is longer than charged")
    kept = charged_in_ledger(subject, again.phase)
    own = {release.event for release in played.charged}
    found.exact(kept is None or kept <= own, "the ledger charges another mechanism than this")


def charged_in_ledger(subject: Subject, phase: Phase) -> set[Event] | None:
    """Each event that a finished run's ledger charges for updates of a step; None without one."""
    if subject.ledger is None:
        return None
    kept = PrivacyLedger.load(subject.ledger).releases
    return {each.event for each in kept if (each.phase, each.purpose) == (phase, "update")}


def opened_of(played: Played) -> NDArray[np.int64]:
    """The opened fields: pools that stayed closed are left out."""
    return _where_open(played, flat(played.opened.total))


def _where_open(played: Played, fields: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of all fields, those that were opened; a pool that stayed closed is zero in the opened."""
    total = played.opened.total
    width, front = total.pools.shape[1], len(total.head) + len(total.shared)
    there = np.repeat(total.pools.any(1).numpy(), width)
    kept: NDArray[np.int64] = fields[np.concatenate([np.ones(front, bool), there])]
    return kept


def _sum(vectors: dict[int, Blocks], played: Played) -> NDArray[np.int64]:
    first, *rest = (flat(each) for each in vectors.values())
    return _where_open(played, sum(rest, start=first))


def _left_out(again: RoundsAgain, numbers: list[int]) -> list[int]:
    """Clients whose shares are taken out: whoever may be missing, and the colluders."""
    return numbers[certain(again) :]


def _open(
    again: RoundsAgain, numbers: list[int], own: dict[int, NDArray[np.int64]], played: Played
) -> NDArray[np.int64]:
    """What these clients' shares are together, where the sum was opened."""
    together = np.zeros(again.level.fields, np.int64)
    for number in numbers:
        together += own[number]
    return _where_open(played, together)


# The game


def _game(
    again: RoundsAgain,
    canaries: int,
    rng: np.random.Generator,
    found: Findings,
    progress: Callable[[float], None],
) -> int:
    """Play it, and take in what it shows; how many canaries there were."""
    level, delta = again.level, again.config.privacy.delta
    adjacency = Adjacency(again.config.privacy.adjacency)
    out = -1.0 if adjacency is Adjacency.REPLACE_ONE else 0.0
    each = min(len(again.cohort), level.pooled)
    rounds = ceil(canaries / each)
    assignment = SealedAssignment.sealed(rounds * each)
    there = np.where(assignment.there, 1.0, out)
    scores, charged = list[Vector](), set[Event]()
    for number, coins in enumerate(there.reshape(rounds, each)):
        random = number % 2 == 1 and level.rounding == "toward_zero"
        made = _round(again, coins, _directions(each, level.pooled, rng if random else None, rng))
        scores.append(made[0])
        charged |= {release.event for release in made[1].charged}
        progress(0.1 + 0.9 * (number + 1) / rounds)
    values = np.concatenate(scores)
    claimed = max(epsilon([event], delta, adjacency) for event in charged)
    shift = (1.0 - out) * level.levels
    claim = Claim(claimed, delta, (shift, level.variance**0.5))
    bounds = all_bounds(values, assignment.open(values), claim, _CONFIDENCE, 10 * SHARE)
    found.game(bounds, claimed, _CONFIDENCE, again.phase)
    told = "shift by one client, in deviations of the noise that is certain"
    found.shift(bounds, told, shift / level.variance**0.5)
    return len(values)


def _round(again: RoundsAgain, coins: Vector, directions: Vector) -> tuple[Vector, Played]:
    """One round of canaries, a client each; the score of each, and the round."""
    level, cohort = again.level, again.cohort
    limit = level.bound if again.bound is None else again.bound
    changes = np.zeros((len(again.clients), level.shared + level.pooled))
    changes[list(cohort[: len(coins)]), level.shared :] = (
        BEYOND * limit * coins[:, None] * directions
    )
    played = again.play(Given(_float(changes), [0] * len(changes)))
    # Noise on its count may keep a pool closed, once in thousands of rounds: it is the same sum.
    total = played.opened.total if played.opened.total.pools[0].any() else played.total
    view = total.pools[0]
    for number in _left_out(again, sorted(played.sent)):
        clean = again.clean(number, played.given, played.bound)
        view = view - (played.sent[number].pools[0] - clean.pools[0])
    return directions @ view.numpy().astype(float), played


def _directions(
    count: int, width: int, random: np.random.Generator | None, rng: np.random.Generator
) -> Vector:
    """Orthonormal rows `[count, width]`: coordinates, or random ones."""
    if random is None:
        made = np.zeros((count, width))
        made[np.arange(count), rng.choice(width, count, replace=False)] = 1.0
        return made
    return np.linalg.qr(random.normal(size=(width, count)))[0].T


def _float(changes: Vector) -> Tensor:
    return torch.from_numpy(changes).float()


CLIENT_NOISE = ClientNoise()
