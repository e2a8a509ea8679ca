"""Pools on an encoder of view moments, under one budget: `examples/configs/private-pools.toml`.

    python -m bench.private_pools run [--seeds 3]    the configuration, a federation a seed
    python -m bench.private_pools split              what the moments' part of ε and the learning
                                                     rate are worth, on the tuning seed
    python -m bench.private_pools page               write docs/private-accuracy.md's tables

`run` is what `secure-fl run` does: secure sums, integer noise, charges. `split` trains the same
heads at the same noise on features that are computed once: its moments carry Gaussian noise of the
run's deviation, its steps are those of DP-SGD written out for a linear head, and all its noise is
seeded, so nothing of it is private. Groups are taken as known there; the runs' sketches find them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

from bench.harness import ROOT, append_row, command_line, provenance, read_rows
from bench.private_accuracy_page import write_page
from bench.private_encoders_moments import means
from bench.private_pools_page import CSV, FEDERATION, HEADS
from secure_fl.coins import Coins
from secure_fl.config_file import load_config
from secure_fl.data.views import own_views
from secure_fl.federation.factory.example_plan import plan_examples
from secure_fl.models.whitening import fisher
from secure_fl.run import Federation
from secure_fl.seeds import derive_seed, generator_of

CONFIG = ROOT / "examples" / "configs" / "private-pools.toml"
TUNING_SEED = 101
"""The split on which rates and parts were looked at; figures are of seeds 0, 1, 2."""
PARTS, RATES = (2.0, 4.0, 6.0), (0.5, 1.0, 2.0, 4.0)
_BATCH = 256


def run(seeds: int) -> Iterator[dict[str, object]]:
    """A federation for each seed that has no row yet, as its summary tells it."""
    done = {row["seed"] for row in read_rows(CSV) if row["what"] == FEDERATION}
    for seed in (seed for seed in range(seeds) if str(seed) not in done):
        began = time.process_time()
        config = load_config(CONFIG, [f"seed={seed}", "evaluate.probe_epochs=0"])
        with tempfile.TemporaryDirectory() as folder:
            summary = Federation(config).run(Path(folder) / "run", progress=False).summary
        assert summary.pools is not None
        assert summary.privacy is not None
        yield {
            "what": FEDERATION,
            "seed": seed,
            "moment_epsilon": config.privacy.epsilon / 2,
            "lr": config.pools.lr,
            "accuracy": round(summary.pools.accuracy or 0.0, 4),
            "worst": round(summary.pools.accuracy_min or 0.0, 4),
            "ari": summary.pools.ari,
            "epsilon": round(summary.privacy.epsilon or 0.0, 3),
            "cpu_seconds": round(time.process_time() - began),
        }


@dataclass(frozen=True)
class Kept:
    """The clients' centred unit features, and the moments that have no noise yet."""

    federation: Federation

    @cached_property
    def centre(self) -> Tensor:
        """Of everybody's features; its noise, a few examples' worth, is left out."""
        return torch.cat([rows for rows, _ in self._features]).double().mean(0)

    @cached_property
    def rows(self) -> list[tuple[Tensor, Tensor]]:
        """Training and test features of each client."""
        centre = self.centre.float()
        return [
            (functional.normalize(train - centre), functional.normalize(test - centre))
            for train, test in self._features
        ]

    @cached_property
    def _features(self) -> list[tuple[Tensor, Tensor]]:
        features = self.federation.factory.view_features()
        with torch.no_grad():
            return [
                (
                    torch.cat([features(part) for part in client.train.x.split(_BATCH)]),
                    torch.cat([features(part) for part in client.test.x.split(_BATCH)]),
                )
                for client in self.federation.clients
            ]

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """W and B."""
        with torch.no_grad():
            return means(self._views(), self.centre)

    def _views(self) -> Iterator[Tensor]:
        factory, features = self.federation.factory, self.federation.factory.view_features()
        x = torch.cat([client.train.x for client in self.federation.clients])
        coins = Coins.public(derive_seed(self.federation.config.seed, "views"))
        for index in torch.arange(len(x)).split(_BATCH):
            views = own_views(factory.augment, x[index], coins.at(0, index), 8)
            stacked = torch.stack(views, dim=1)
            yield features(stacked.flatten(0, 1)).unflatten(0, stacked.shape[:2])

    def head(self, part: float) -> tuple[Tensor, float]:
        """The matrix of moments that cost `part`, and the noise multiplier left for training."""
        settings = [f"seed={self.federation.config.seed}", f"privacy.moment_epsilon={part}"]
        planned = Federation(load_config(CONFIG, settings))
        sums, n = planned.factory.view_moments.moments, sum(len(rows) for rows, _ in self.rows)
        deviation = sums.deviation(len(self.rows)) / sums.levels * sqrt(2) / n
        generator = generator_of(self.federation.config.seed, "moments", str(part))
        within, between = (each + _symmetric(deviation, generator) for each in self.moments)
        prior = self.federation.factory.moment_prior
        matrix = fisher(within, between, deviation, deviation, n, prior).float()
        examples = len(self.rows[0][0])
        return matrix, plan_examples(planned.factory, examples, examples).noise


def split(seed: int = TUNING_SEED) -> Iterator[dict[str, object]]:
    """Every part of ε with every learning rate."""
    kept = Kept(Federation(load_config(CONFIG, [f"seed={seed}"])))
    for part in PARTS:
        matrix, noise = kept.head(part)
        for lr in RATES:
            began = time.process_time()
            found = heads(kept, matrix, noise, lr)
            yield {
                "what": HEADS,
                "seed": seed,
                "moment_epsilon": part,
                "lr": lr,
                "accuracy": round(fmean(found), 4),
                "worst": round(min(found), 4),
                "ari": "",
                "epsilon": kept.federation.config.privacy.epsilon,
                "cpu_seconds": round(time.process_time() - began),
            }


def heads(kept: Kept, matrix: Tensor, noise: float, lr: float) -> list[float]:
    """Test accuracy of each client's pool: rounds of noised steps, averaged over the group."""
    config, clients = kept.federation.config, kept.federation.clients
    generator, found = generator_of(config.seed, "heads", str(lr)), []
    for group in range(config.partition.groups):
        members = [place for place, client in enumerate(clients) if client.group == group]
        weights = torch.zeros(len(matrix) + 1, 10)
        for _ in range(config.pools.rounds):
            trained = [
                _round(weights, _with_one(kept.rows[each][0] @ matrix), clients[each].train.y,
                       kept, noise, lr, generator)
                for each in members
            ]  # fmt: skip
            weights = torch.stack(trained).mean(0)
        for each in members:
            right = (_with_one(kept.rows[each][1] @ matrix) @ weights).argmax(1)
            found.append(float((right == clients[each].test.y).double().mean()))
    return found


def _round(
    start: Tensor, x: Tensor, y: Tensor, kept: Kept, noise: float, lr: float, coins: torch.Generator
) -> Tensor:
    """A client's steps of DP-SGD from a head, `[F + 1, classes]`."""
    config, weights, moved = kept.federation.config, start.clone(), torch.zeros_like(start)
    pools, clip, n = config.pools, config.privacy.clip, len(x)
    rate = min(1.0, pools.batch_size / n)
    for _ in range(pools.local_epochs * ceil(n / pools.batch_size)):
        drawn = torch.rand(n, generator=coins) < rate
        wrong = (x[drawn] @ weights).softmax(1) - functional.one_hot(y[drawn], start.shape[1])
        norms = wrong.norm(dim=1) * x[drawn].norm(dim=1)
        total = x[drawn].T @ (wrong * (clip / norms.clamp_min(clip))[:, None])
        total += clip * noise * torch.randn(total.shape, generator=coins)
        moved = pools.momentum * moved + total / (rate * n) + pools.weight_decay * weights
        weights = weights - lr * moved
    return weights


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1)], dim=1)


def _symmetric(deviation: float, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(512, 512, generator=generator, dtype=torch.float64) * deviation
    upper = drawn.triu(1) / sqrt(2)
    return upper + upper.T + drawn.diag().diag()


def main() -> None:
    """Command line."""
    arguments = command_line(__doc__, "run", "split", "page").parse_args()
    torch.set_num_threads(1)
    if arguments.what != "page":
        rows = run(arguments.seeds) if arguments.what == "run" else split()
        where = provenance(["dp-accounting", "opacus"])
        for row in rows:
            append_row(CSV, row, where)
            print(*list(row.values()), sep=" | ", flush=True)
    print(write_page())


if __name__ == "__main__":
    main()
