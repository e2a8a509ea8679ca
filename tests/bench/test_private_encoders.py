"""The bench of private encoders: its splits, its noise, its tables. Accuracies are in the CSV."""

from __future__ import annotations

from math import inf, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from bench.private_encoders_cells import (
    BYTES_CSV,
    CSV,
    FEDERATION,
    FISHER_PRIOR,
    FRESH,
    IMAGES,
    PUBLIC,
    cells,
)
from bench.private_encoders_moments import CENTRE_SHARE, DELTA, Level, head, means
from bench.private_encoders_page import _STUDENT, added, encoders, fresh, interval, records
from bench.private_encoders_sets import CLIENTS, equal_shares, split
from secure_fl.privacy.accounting import Charge, epsilon_of
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent


def test_every_cell_is_measured_once_and_the_targets_are_among_the_first() -> None:
    every = list(cells(5))
    assert len(set(every)) == len(every)
    targets = {(data, FISHER_PRIOR, level, "sum") for data in IMAGES for level in ("8", "2")}
    first = {(c.data, c.encoder, c.epsilon, c.placed) for c in every[:16]}
    assert targets <= first


def test_clients_have_as_many_examples_and_few_of_the_labels() -> None:
    y = torch.arange(3200) % 10
    own = equal_shares(y, 10, np.random.default_rng(0))
    counts = torch.stack([torch.bincount(y[own == each], minlength=10) for each in range(CLIENTS)])
    assert counts.sum(1).tolist() == [200] * CLIENTS
    assert float((counts.max(1).values / 200).median()) > 0.4


@pytest.mark.parametrize("name", ["digits as columns", "series"])
def test_a_split_is_its_seed_s(name: str) -> None:
    once, again, other = split(name, 1), split.__wrapped__(name, 1), split(name, 2)
    assert torch.equal(once.train.x, again.train.x)
    assert not torch.equal(once.train.x, other.train.x)


def test_noise_by_who_adds_it() -> None:
    """A curator's is the Gaussian's of the budget, each client's four times it, and shares of the
    sum lie between: they are made for 11 of 16.
    """
    sums, client, curator = (Level(8.0, place).deviation for place in ("sum", "client", "curator"))
    assert client == pytest.approx(4 * curator)
    assert curator * sqrt(16 / 11) < sums < 1.15 * curator * sqrt(16 / 11)
    assert Level(inf, "sum").deviation == 0
    of_moments, of_centre = curator, curator * sqrt((1 - CENTRE_SHARE) / CENTRE_SHARE)
    spent = [GaussianEvent(noise, 1.0, 1) for noise in (of_moments, of_centre)]
    charges = [Charge(event, Adjacency.ZERO_OUT) for event in spent]
    assert epsilon_of(charges, DELTA) == pytest.approx(8.0, rel=0.01)


def test_intervals_are_student_s() -> None:
    for seeds, point in _STUDENT.items():
        assert point == pytest.approx(stats.t.ppf(0.975, seeds - 1), abs=0.006)
    assert interval([0.4, 0.5]) == "0.450 ± 0.635"
    assert interval([0.4]) == "0.400"


def test_gains_are_of_the_same_split() -> None:
    """A seed that only one of the two has does not count."""
    row = {"data": "MNIST-5k", "probe": "0.9", "knn": "0.9", "k5": "0.4"}
    row |= {"head_seconds": "1.0", "sum_seconds": "2.0", "bytes_up": ""}
    public = {"encoder": PUBLIC, "placed": "", "epsilon": "inf"}
    ours = {"encoder": FISHER_PRIOR, "placed": "sum", "epsilon": "8"}
    rows = [
        row | way | {"seed": seed, "p5": p5}
        for way, seed, p5 in ((public, "0", "0.40"), (ours, "0", "0.47"), (ours, "1", "0.90"))
    ]
    assert "+7.0" in added(rows)
    assert (
        f"| {FISHER_PRIOR} | in the sum | 8 | 0.900 ± 0.000 | 0.900 ± 0.000 | 0.685 ± 2.733 |"
        in encoders("MNIST-5k", rows)
    )


def test_tuned_and_fresh_splits_are_shown_apart() -> None:
    """What is said of seeds 0 to 4 holds none of the others."""
    row = {"data": IMAGES[0], "encoder": FISHER_PRIOR, "placed": "sum", "epsilon": "2"}
    rows = [
        row | {"seed": str(seed), "p5": "0.5" if seed in FRESH else "0.4"} for seed in range(10)
    ]
    assert (
        f"| {FISHER_PRIOR} | 2 | 0.400 ± 0.000 | 0.500 ± 0.000 | 0.450 ± 0.038 | 0.400 |"
        in fresh(rows)
    )


def test_bytes_stand_beside_what_is_sent_only(tmp_path: Path) -> None:
    """Not where nobody sums, and not where no run does it so."""
    columns = "data,encoder,epsilon,placed"
    said = ((FISHER_PRIOR, "sum"), (FISHER_PRIOR, "curator"), (FISHER_PRIOR, "client"))
    said += (FEDERATION, "sum"), ("SSD in a federation", "client"), (PUBLIC, "")
    lines = [f'MNIST-5k,"{encoder}",8,{placed}' for encoder, placed in said]
    (tmp_path / CSV).write_text("\n".join([columns, *lines]))
    known = [f'MNIST-5k,"{FISHER_PRIOR}",8,100', "MNIST-5k,SSD in a federation,8,200"]
    (tmp_path / BYTES_CSV).write_text("\n".join(["data,encoder,epsilon,bytes_up", *known]))
    assert [row["bytes_up"] for row in records(tmp_path)] == ["100", "", "", "100", "200", ""]


def test_moments_are_the_mechanism_s_to_the_grid() -> None:
    from secure_fl.privacy.view_moments import ViewMoments

    generator = torch.Generator().manual_seed(4)
    middle = torch.randn(50, 1, 16, generator=generator)
    views = functional.normalize(middle + 0.3 * torch.randn(50, 8, 16, generator=generator), dim=2)
    centre = views.mean((0, 1)).double()
    mechanism = ViewMoments.without_noise(16, 8, 0.1, True, roster=1)
    total = mechanism.sum_moments([views], centre, 50)
    held = mechanism.opened_moments(total, 1)
    within, between = means(views.split(20), centre)
    torch.testing.assert_close(within, held.within, rtol=0, atol=3e-4)
    torch.testing.assert_close(between, held.between, rtol=0, atol=3e-4)


def test_heads_by_lapack_are_the_run_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import private_encoders_moments as bench
    from secure_fl.models.whitening import fisher

    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, 12, 12, generator=generator, dtype=torch.float64)
    within, between = drawn @ drawn.mT / 100
    found = bench.Measured(within, within, within, between, 1000, 0.0)
    monkeypatch.setattr(bench, "measured", lambda *_: found)
    monkeypatch.setattr(bench, "FEATURES", 12)
    fast = head("", 0, Level(inf, "sum"), "fisher", beside_prior=False)
    torch.testing.assert_close(fast, fisher(within, between, 0.0, 0.0, 1000))
