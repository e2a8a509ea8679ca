"""What should sketches be made of, and how should labels enter? How often all groups are found.

    python -m bench.sketch_kinds [--draws 12] [--workers 2] [--data NAME ...] [--page]

Twelve clients in four groups (two where groups are sources) hold 50, 100 or 300 examples each.
Groups are rotations, permuted labels, sources, or sensors of series; labels are even, or each
client's own shares of a Dirichlet(0.1) draw. Sketches are made of pooled examples, of their
scattering, of random features of it, or by an encoder as it is drawn, and grouped as runs do, with
128 starts. ε is of both releases together, zero-out, δ = 1e-5; "none" is an open experiment. No
model is trained. Rows go to `results/sketch_kinds.csv`; what has rows there is not measured again.

Two rivals, of which only abstracts were read, so that both are our reading: "low-rank" (PINA, arXiv
2604.20596) fine-tunes a low-rank adapter of a head on fixed vectors by noised gradient steps and
groups clients by a public projection of it; "rebalanced" (arXiv 2508.06183) moves random clients
from large groups to those below the fewest that may be opened, instead of keeping the tightest
start that has none.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import sqrt
from multiprocessing import get_context
from statistics import fmean

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from bench.harness import ROOT, append_row, provenance, read_rows
from bench.pages import fill, sheet
from bench.sketch_clients import SCENARIOS, Client, Scenario, classes, clients
from secure_fl.pools.sketch import (
    LIGHTEST,
    each_number,
    first_centres,
    moved_centres,
    parts_from,
    parts_of,
    sketch_of,
    tightest_start,
)
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.calibration import noise_for
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.private_sketch import GRID, PrivateSketch, on_grid
from secure_fl_kernels.reference import normalize

CSV, PAGE = "sketch_kinds.csv", ROOT / "docs" / "pool-starts.md"
DELTA, STARTS, ITERATIONS, FEWEST = 1e-5, 128, 11, 3
SIZES = (100, 300, 50)
BUDGETS = (0.25, 1.0, 2.0, None)
KINDS = ("examples", "scattering", "features", "encoder")
LABELS = ("features", "labelled", "conditional")
RIVALS = ("low-rank", "rebalanced")
_STEPS, _RANK, _PROJECTED, _SEEDS = 3, 8, 24, 4


@dataclass(frozen=True)
class Setting:
    """One row's facts; `epsilon` None is without noise."""

    data: str
    groups: str
    skewed: bool
    size: int
    epsilon: float | None
    of: str
    labels: str

    @property
    def scenario(self) -> Scenario:
        """What sets the clients apart."""
        return Scenario(self.data, self.groups, self.skewed)


def settings(data: Iterable[str]) -> Iterator[Setting]:
    """All that is measured on these sets; what says most comes first."""
    for size, of, scenario in product(SIZES, KINDS, SCENARIOS):
        lacks = scenario.data == "digits" and size == max(SIZES)
        if scenario.data in data and not lacks and of in _kinds(scenario, size):
            for epsilon, labels in product(_budgets(scenario, size), _ways(scenario, of, size)):
                yield Setting(**vars(scenario), size=size, epsilon=epsilon, of=of, labels=labels)


def _kinds(scenario: Scenario, size: int) -> tuple[str, ...]:
    """All kinds of vector at one size and with even labels; elsewhere the two that differ most."""
    return KINDS if size == SIZES[0] and not scenario.skewed else KINDS[:2]


def _budgets(scenario: Scenario, size: int) -> tuple[float | None, ...]:
    """A quarter only where many even labels leave something to find at it; no noise at one size."""
    if size != SIZES[0]:
        return BUDGETS[:3] if size > SIZES[0] and not scenario.skewed else BUDGETS[1:3]
    return BUDGETS[1:] if scenario.skewed or scenario.groups == "permutation" else BUDGETS


def _ways(scenario: Scenario, of: str, size: int) -> tuple[str, ...]:
    """How labels enter; and the rivals at one size, each on the vectors that serve it best."""
    rivals = {"scattering": RIVALS[:1], "examples": RIVALS[1:]}.get(of, ())
    rivals = rivals if size == SIZES[0] else ()
    if scenario.groups == "permutation":
        return (*LABELS[1:], *rivals) if of == "examples" else (*LABELS[1:2], *rivals)
    return (*(LABELS if scenario.skewed or of == "examples" else LABELS[:2]), *rivals)


@cache
def noise_of(epsilon: float) -> float:
    """Noise multiplier of both releases together."""
    return noise_for(epsilon, DELTA, Adjacency.ZERO_OUT, sampling_rate=1, steps=1)


@cache
def mechanism(epsilon: float, width: int, seed: int, number: int, parted: bool) -> PrivateSketch:
    """The released sketch's settings, whose projection and codes take long to draw."""
    return PrivateSketch(noise_of(epsilon), width, seed, number, by_label=parted)


def sketches(dealt: list[Client], setting: Setting, draw: int) -> tuple[Tensor, Tensor]:
    """Of all clients `[N, S]`, and their weights `[N, parts]`, `[N, 0]` where there is one part."""
    number = 0 if setting.labels == "features" else classes(setting.data)
    parted, none = setting.labels == "conditional", torch.zeros(0)
    if setting.epsilon is None:
        made = [
            parts_of(x, y, number)
            if parted
            else (sketch_of(x, y if number else None, number), none)
            for x, y, _ in dealt
        ]
        return torch.stack([one for one, _ in made]), torch.stack([one for _, one in made])
    size, width = dealt[0][0].shape
    sketch = mechanism(setting.epsilon, width, draw % _SEEDS, number, parted)
    x, y = torch.cat([x for x, *_ in dealt]), torch.cat([y for _, y, _ in dealt])
    generator = torch.Generator().manual_seed(draw)

    def released(parts: Tensor, event: GaussianEvent) -> Tensor:
        total = parts.view(len(dealt), size, -1).sum(1).double() / GRID
        deviates = torch.randn(total.shape, generator=generator, dtype=torch.float64)
        noised: Tensor = (total + event.noise_multiplier * deviates) / size
        return noised

    first, second = sketch.events()
    centre = released(on_grid(x), first).mean(0)
    sent = released(sketch.contributions(x, y if number else None, centre), second)
    if not parted:
        return sent, torch.zeros(len(dealt), 0)
    made = [parts_from(*sketch.parts(one, size)) for one in sent]
    return torch.stack([one for one, _ in made]), torch.stack([one for _, one in made])


def k_means(
    made: Tensor, weights: Tensor, groups: int, seed: int, fewest: int = FEWEST
) -> list[int]:
    """Groups as a run finds them, the sums of all clients' votes taken at once."""
    each = each_number(weights, made.shape[1]).double()
    points = made - (each * made).sum(0) / each.sum(0).clamp_min(LIGHTEST)
    spread = float((each * points.square()).sum(1).mean().sqrt())
    parts = max(1, weights.shape[1])
    centres = first_centres(STARTS, groups, points.shape[1], spread, seed, parts).double()
    squares, weighed = (each * points.square()).sum(1), each * points
    for number in range(ITERATIONS):
        across = torch.einsum("nd,skd->snk", weighed, centres)
        own = torch.einsum("nd,skd->snk", each, centres.square())
        distance = (squares[:, None] - 2 * across + own).clamp_min(0)
        votes = torch.nn.functional.one_hot(distance.argmin(2), groups).double()
        counts, distortion = votes.sum(1), (votes * distance).sum(1)
        sums, shares = votes.mT @ weighed, votes.mT @ each if weights.shape[1] else None
        moved = moved_centres(sums, counts, distortion, seed + number, shares).double()
        if float((moved - centres).abs().max()) < 1e-6 * spread:
            break
        centres = moved
    best = tightest_start(distortion, counts, fewest)
    return [int(group) for group in distance[best].argmin(1)]


def rebalanced(found: list[int], groups: int, seed: int) -> list[int]:
    """Random members of groups above the fewest go to those below it."""
    rng, found = np.random.default_rng(seed), list(found)
    for small in range(groups):
        while found.count(small) < FEWEST:
            free = [i for i, group in enumerate(found) if found.count(group) > FEWEST]
            found[int(rng.choice(free))] = small
    return found


def low_rank(dealt: list[Client], setting: Setting, draw: int) -> Tensor:
    """Each client's adapter after a few clipped and noised steps, projected: `[N, projected]`.

    A head's logits are B A h: h an example's vector at unit length, A public and fixed, B zero at
    first. An example's gradient of the cross-entropy is (p - y) (A h)ᵀ, clipped to length 1.
    """
    generator, number = torch.Generator().manual_seed(draw), classes(setting.data)
    width, found = dealt[0][0].shape[1], []
    noise = sqrt(_STEPS) * (0.0 if setting.epsilon is None else noise_of(setting.epsilon))
    down = torch.randn(width, _RANK, generator=generator, dtype=torch.float64)
    public = torch.randn(number * _RANK, _PROJECTED, generator=generator, dtype=torch.float64)
    for x, y, _ in dealt:
        inner = normalize(x.double()) @ torch.linalg.qr(down).Q
        adapter = torch.zeros(number, _RANK, dtype=torch.float64)
        target = torch.nn.functional.one_hot(y, number).double()
        for _ in range(_STEPS):
            wrong = torch.softmax(inner @ adapter.T, 1) - target
            rows = (wrong[:, :, None] * inner[:, None, :]).flatten(1)
            rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1.0)
            deviates = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64)
            adapter -= ((rows.sum(0) + noise * deviates) / len(x)).view_as(adapter)
        found.append(adapter.flatten() @ public)
    return torch.stack(found)


def score(setting: Setting, draw: int) -> float:
    """Adjusted Rand index of one draw."""
    dealt = clients(setting.scenario, setting.of, setting.size, draw)
    count, truth = setting.scenario.count, [group for *_, group in dealt]
    if setting.labels == "low-rank":
        found = k_means(low_rank(dealt, setting, draw), torch.zeros(len(dealt), 0), count, draw)
    elif setting.labels == "rebalanced":
        alike = Setting(**{**vars(setting), "labels": "labelled"})
        found = k_means(*sketches(dealt, alike, draw), count, draw, fewest=1)
        found = rebalanced(found, count, draw)
    else:
        found = k_means(*sketches(dealt, setting, draw), count, draw)
    return float(adjusted_rand_score(truth, found))


def measure(some: list[Setting], draws: int) -> list[dict[str, object]]:
    """A row for each setting."""
    torch.set_num_threads(1)
    rows = []
    for setting in some:
        scores = [score(setting, draw) for draw in range(draws)]
        row: dict[str, object] = {name: str(value) for name, value in vars(setting).items()}
        found = sum(one == 1 for one in scores)
        rows.append(row | {"draws": draws, "found": found, "ari": round(fmean(scores), 4)})
    return rows


def facts(row: Mapping[str, object]) -> tuple[str, ...]:
    """What tells settings apart in the CSV."""
    return tuple(str(row[name]) for name in Setting.__dataclass_fields__)


def run(data: list[str], draws: int, workers: int) -> None:
    """Measure what is missing, a set and kind of vector at a time, in processes of one thread."""
    where, done = provenance(), set(map(facts, read_rows(CSV)))
    jobs: dict[tuple[object, ...], list[Setting]] = {}
    for setting in settings(data):
        if facts(vars(setting)) not in done:
            key = (setting.data, setting.of, setting.size)
            jobs.setdefault(key, []).append(setting)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(measure, job, draws) for job in jobs.values()]
        for number, future in enumerate(as_completed(futures), 1):
            for row in future.result():
                append_row(CSV, row, where)
            print(f"{number}/{len(futures)}", *facts(row)[:4], row["of"], flush=True)


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """What was measured: in a cell the draws in which all groups were found, and the mean index."""
    known = {facts(row): row for row in rows}
    lines = []
    for line in sorted({(*fact[:4], *fact[5:]) for fact in known}):
        cells = []
        for budget in BUDGETS:
            row = known.get((*line[:4], str(budget), *line[4:]))
            cells.append(f"{row['found']} ({float(row['ari']):.2f})" if row else "–")
        data, groups, skewed, *rest = line
        lines.append([data, groups, "skewed" if skewed == "True" else "even", *rest, *cells])
    head = ("data", "groups", "labels", "examples", "made of", "sketch", "ε = 0.25", "1", "2")
    return sheet((*head, "none"), lines)


def sums(rows: Iterable[Mapping[str, str]]) -> str:
    """Over all scenarios and sizes in which a kind of sketch was measured: the share of draws in
    which all groups were found, and of how many cells.
    """
    cells: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        kind, place = (row["of"], row["labels"]), (row["skewed"], row["epsilon"])
        share = int(row["found"]) / int(row["draws"])
        cells.setdefault(kind, {}).setdefault(place, []).append(share)
    columns = [(skewed, str(epsilon)) for skewed in ("False", "True") for epsilon in BUDGETS[1:]]
    said = {"False": "even", "True": "skewed"}
    heads = [
        f"{said[skewed]}, " + ("no noise" if epsilon == "None" else f"ε = {float(epsilon):g}")
        for skewed, epsilon in columns
    ]
    lines = [
        [*kind, *(_share_of(found.get(column, [])) for column in columns)]
        for kind, found in sorted(cells.items())
    ]
    return sheet(("made of", "sketch", *heads), lines)


def _share_of(found: list[float]) -> str:
    return f"{fmean(found):.2f} of {len(found)}" if found else "–"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=12, help="draws a setting (default 12)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    names = sorted({scenario.data for scenario in SCENARIOS})
    parser.add_argument("--data", action="append", choices=names, help="only these; repeatable")
    parser.add_argument("--page", action="store_true", help="only write the tables of the page")
    arguments = parser.parse_args()
    if not arguments.page:
        run(arguments.data or names, arguments.draws, arguments.workers)
    print(fill(PAGE, lambda name: {"kinds": table, "sums": sums}[name](read_rows(CSV))))


if __name__ == "__main__":
    main()
