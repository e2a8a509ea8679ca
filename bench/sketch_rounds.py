"""In how few rounds does the sketch start find its groups?

    python -m bench.sketch_rounds [--draws 12]

Sketches are made, noised and grouped as in `bench.private_sketch`; here k-means is followed vote by
vote: after each, the groups that a run would go on with if it ended there. Twelve clients share the
digits, four groups by rotation or by permuted labels, without noise, at the default ε = 1 and at
twice that noise; and clients made up around 2 to 8 centres, from far apart to overlapping, up to 64
clients. A vote is a round of a run, and one more comes before the first. Rows go to
`results/sketch_rounds.csv`; what has rows there is not measured again.

Quality is the mean adjusted Rand index over draws, and in how many draws it is 1; `settled` is the
share of draws in which k-means moves no centre any more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import fmean

import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from bench import private_sketch as private
from bench.harness import append_row, provenance, read_rows
from bench.pages import sheet
from secure_fl.pools.sketch import first_centres, moved_centres, tightest_start

CSV = "sketch_rounds.csv"
VOTES = 15
STARTS = (32, 128, 512)
FEWEST = 3
_MEAN_LOSS, _LOSS = 0.0005, 0.005
Sketches = tuple[Tensor, list[int]]
"""Of all clients `[N, S]`, and the group of each."""


@dataclass(frozen=True)
class Case:
    """Where sketches come from: `draw` -> sketches and groups."""

    name: str
    groups: int
    draw: Callable[[int], Sketches]


def cases() -> Iterator[Case]:
    """Everything that is measured."""
    kinds = [("rotation", False), ("rotation", True), ("label_permutation", True)]
    for (groups, labelled), noise in product(kinds, (1e-6, private.ONE, 2 * private.ONE)):
        setting = private.Setting(groups, 120, labelled)
        name = f"digits {groups}{' by label' if labelled else ''}, noise {noise:.2f}"
        yield Case(name, private.GROUPS, partial(private.released, "digits", setting, noise))
    for groups, clients, apart in product((2, 4, 8), (12, 64), (4.0, 2.0, 1.0)):
        if clients >= FEWEST * groups:
            name = f"{groups} groups of {clients} clients, {apart:g} apart"
            yield Case(name, groups, partial(_made_up, groups, clients, apart))


def _made_up(groups: int, clients: int, apart: float, draw: int) -> Sketches:
    """Clients around random centres of twelve coordinates, which lie `apart` deviations off."""
    generator = torch.Generator().manual_seed(draw)
    centres = apart * torch.randn(groups, 12, generator=generator, dtype=torch.float64)
    member = [client % groups for client in range(clients)]
    strays = torch.randn(clients, 12, generator=generator, dtype=torch.float64)
    return centres[member] + strays, member


def course(sketches: Tensor, pools: int, starts: int, seed: int) -> list[tuple[list[int], bool]]:
    """After each vote the groups of the tightest start, and whether no centre moves any more."""
    points = sketches - sketches.mean(0)
    spread = float(points.square().sum(1).mean().sqrt())
    centres = first_centres(starts, pools, points.shape[1], spread, seed).double()
    found = []
    for number in range(VOTES):
        distance = torch.cdist(points.expand(starts, -1, -1), centres).square()
        votes = torch.nn.functional.one_hot(distance.argmin(2), pools).double()
        counts, distortion = votes.sum(1), (votes * distance).sum(1)
        groups = distance[tightest_start(distortion, counts, FEWEST)].argmin(1).tolist()
        moved = moved_centres(votes.mT @ points, counts, distortion, seed + number).double()
        found.append((groups, float((moved - centres).norm(dim=-1).max()) <= 1e-6 * spread))
        centres = moved
    return found


def measure(case: Case, starts: int, draws: int) -> Iterator[dict[str, object]]:
    """A row for each number of votes."""
    courses, truths = [], []
    for draw in range(draws):
        sketches, truth = case.draw(draw)
        courses.append(course(sketches, case.groups, starts, draw))
        truths.append(truth)
    for vote in range(VOTES):
        scores = [
            float(adjusted_rand_score(truth, one[vote][0]))
            for truth, one in zip(truths, courses, strict=True)
        ]
        yield {
            "case": case.name,
            "starts": starts,
            "votes": vote + 1,
            "draws": draws,
            "ari": round(fmean(scores), 4),
            "found": sum(score == 1 for score in scores),
            "settled": round(fmean(one[vote][1] for one in courses), 4),
        }


@dataclass(frozen=True)
class Quality:
    """After so many votes, over all cases: mean index, draws that found all groups, the largest
    loss of one case against the last vote, and the share of draws that have settled.
    """

    ari: float
    found: int
    draws: int
    worst: float
    settled: float


def qualities(starts: int) -> list[Quality]:
    """As measured, one a vote."""
    rows = [row for row in read_rows(CSV) if int(row["starts"]) == starts]
    last = {row["case"]: float(row["ari"]) for row in rows if int(row["votes"]) == VOTES}
    found = []
    for vote in range(1, VOTES + 1):
        mine = [row for row in rows if int(row["votes"]) == vote]
        ari, settled = (fmean(float(row[name]) for row in mine) for name in ("ari", "settled"))
        counts = (sum(int(row[name]) for row in mine) for name in ("found", "draws"))
        worst = max(last[row["case"]] - float(row["ari"]) for row in mine)
        found.append(Quality(ari, *counts, worst, settled))
    return found


def fewest(starts: int) -> int:
    """The least votes that lose nothing against the last: as many groups found, and an index that
    is lower by no more than 0.0005 in the mean and 0.005 in any case.
    """
    found = qualities(starts)
    return 1 + next(
        vote
        for vote, one in enumerate(found)
        if one.found >= found[-1].found
        and one.ari >= found[-1].ari - _MEAN_LOSS
        and one.worst <= _LOSS
    )


def table(starts: int) -> str:
    """Quality after each vote, as Markdown."""
    head = ["votes", "ARI, mean", "all groups found", "largest loss of a case", "settled"]
    rows = [
        [
            str(vote),
            f"{one.ari:.4f}",
            f"{one.found} of {one.draws}",
            f"{one.worst:.4f}",
            f"{one.settled:.0%}",
        ]
        for vote, one in enumerate(qualities(starts), 1)
    ]
    return sheet(head, rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=12, help="draws a case (default 12)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    where = provenance()
    done = {(row["case"], int(row["starts"])) for row in read_rows(CSV)}
    for case, starts in product(cases(), STARTS):
        if (case.name, starts) in done:
            continue
        for row in measure(case, starts, arguments.draws):
            append_row(CSV, row, where)
        print(case.name, starts, "measured", flush=True)
    for starts in STARTS:
        print(f"{starts} starts: {fewest(starts)} votes lose nothing\n{table(starts)}")


if __name__ == "__main__":
    main()
