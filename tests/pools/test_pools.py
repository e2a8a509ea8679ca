"""Choosing, watching and sketching, apart from any training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secure_fl.config import FederationConfig
from secure_fl.models.heads import Classifier
from secure_fl.pools.monitor import adjusted_rand, pool_health
from secure_fl.pools.pool_set import PoolLayout, PoolSet
from secure_fl.pools.selection import best_pool, clearly_lower
from secure_fl.pools.sketch import first_centres, moved_centres, nearest_centre, sketch_of, tightest_start, without_labels

NAN = float("nan")


def test_choice_by_loss_and_by_accuracy() -> None:
    assert best_pool([0.3, 0.1, 0.2], [], "loss") == 1
    assert best_pool([0.3, 0.1, 0.2], [0.9, 0.5, 0.9], "accuracy") == 2
    assert best_pool([NAN, 5.0], [], "loss") == 1
    assert best_pool([NAN, NAN], [], "loss") == 0


@given(st.lists(st.just(0.5), min_size=1, max_size=6))
def test_equal_pools_send_everyone_to_the_first(losses: list[float]) -> None:
    assert best_pool(losses, [None] * len(losses), "loss") == best_pool(losses, [0.5] * len(losses), "accuracy") == 0


def test_a_pool_is_left_for_one_that_is_better_by_a_share_and_beyond_chance() -> None:
    own = torch.full((40,), 2.0)
    assert clearly_lower(own - 0.25, own, 0.1)
    assert not clearly_lower(own - 0.15, own, 0.1), "ahead as a head is that was trained a little more"
    assert clearly_lower(own / 10 - 0.025, own / 10, 0.1), "a share of what is left to learn, whatever its scale"
    few = torch.tensor([2.0, 2.0, 2.0])
    assert not clearly_lower(few - torch.tensor([3.0, -1.0, 0.0]), few, 0.1), "three labels that disagree"
    assert clearly_lower(few[:1] - 1, few[:1], 0.1), "of one value there is no error to tell"
    assert clearly_lower(own - 1, -own.new_full((40,), NAN), 0.1)
    assert not clearly_lower(own.new_full((40,), NAN), own.new_full((40,), NAN), 0.1)
    assert clearly_lower(-own - 0.25, -own, 0.1), "losses of some objectives are negative"
    assert not clearly_lower(-own - 0.15, -own, 0.1)


def test_collapse_raises_an_alert_with_a_remedy() -> None:
    health = pool_health([8, 0, 0, 0], FederationConfig(pools={"start": "random", "count": 4}))
    assert health.active == 1
    assert health.largest_share == 1
    assert health.entropy == 0
    assert adjusted_rand([0] * 8, [0, 1, 2, 3] * 2) == 0
    assert health.alert is not None
    assert "all 8 clients" in health.alert
    assert "sketch" in health.alert


def test_near_collapse_and_health() -> None:
    assert "near collapse" in (pool_health([19, 1]).alert or "")
    healthy = pool_health([2, 2, 2, 2])
    assert healthy.alert is None
    assert healthy.entropy == pytest.approx(1)
    assert adjusted_rand([0, 1, 2, 3] * 2, [3, 2, 1, 0] * 2) == 1
    assert pool_health([5]).alert is None
    assert adjusted_rand([0, 0, 0, 1, 1], [None] * 5) is None


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8).filter(any))
def test_health_stays_in_its_ranges(counts: list[int]) -> None:
    health = pool_health(counts)
    assert 0 <= health.entropy <= 1 + 1e-12
    assert 1 / len(counts) <= health.largest_share <= 1
    assert 1 <= health.active <= len(counts)


def test_sketches_by_hand() -> None:
    h = torch.tensor([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0]])
    torch.testing.assert_close(sketch_of(h), torch.tensor([1.6, 1.8]) / 3)
    split = sketch_of(h, torch.tensor([1, 0, 1]), 3)
    torch.testing.assert_close(split, torch.tensor([0, 1, 1.6, 0.8, 0, 0]) / 3)
    torch.testing.assert_close(without_labels(split, 2), sketch_of(h))


def blobs(groups: int, per_group: int, dimension: int, seed: int, noise: float = 0.05) -> tuple[torch.Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(groups, dimension, generator=generator)
    points = means.repeat_interleave(per_group, 0) + noise * torch.randn(groups * per_group, dimension, generator=generator)
    return points - points.mean(0), [g for g in range(groups) for _ in range(per_group)]


def k_means(points: torch.Tensor, pools: int, starts: int, seed: int) -> torch.Tensor:
    """The protocol in one place: votes from every point, sums, moved centres; the tightest start's choices."""
    spread = float(points.square().sum(1).mean().sqrt())
    centres = first_centres(starts, pools, points.shape[1], spread, seed)
    for iteration in range(20):
        sums, counts, distortion = torch.zeros(starts, pools, points.shape[1]), torch.zeros(starts, pools), torch.zeros(starts, pools)
        for point in points:
            index, distance = nearest_centre(point, centres)
            rows = torch.arange(starts)
            sums[rows, index] += point
            counts[rows, index] += 1
            distortion[rows, index] += distance.float()
        best = centres[int(distortion.sum(1).argmin())]
        centres = moved_centres(sums, counts, distortion, iteration)
    return torch.stack([nearest_centre(point, best[None])[0][0] for point in points])


@pytest.mark.parametrize("seed", range(5))
def test_k_means_over_sums_finds_separate_groups(seed: int) -> None:
    points, groups = blobs(4, 4, 64, seed)
    choices = k_means(points, 4, 16, seed)
    assert adjusted_rand(choices.tolist(), groups) == 1


def test_k_means_over_sums_is_as_tight_as_scikit_learns() -> None:
    from sklearn.cluster import KMeans

    points, _ = blobs(5, 6, 8, 3, noise=0.6)
    choices = k_means(points, 5, 32, 0)
    ours = sum(float((points[choices == k] - points[choices == k].mean(0)).square().sum()) for k in range(5))
    theirs = KMeans(5, n_init=50, random_state=0).fit(points.numpy()).inertia_
    assert ours <= theirs * 1.02


def test_the_tightest_start_is_one_whose_pools_could_all_be_opened() -> None:
    distortion, counts = torch.tensor([[1.0, 0.0], [2.0, 2.0], [3.0, 3.0]]), torch.tensor([[5.0, 1.0], [3.0, 3.0], [3.0, 3.0]])
    assert tightest_start(distortion, counts) == 0
    assert tightest_start(distortion, counts, 3) == 1
    assert tightest_start(distortion, counts, 4) == 0, "where no start fills its pools, the tightest"


def test_empty_blocks_split_the_widest() -> None:
    sums = torch.tensor([[[4.0, 0.0], [0.0, 0.0], [0.0, 3.0]]])
    counts, distortion = torch.tensor([[4.0, 0.0, 3.0]]), torch.tensor([[8.0, 0.0, 0.1]])
    centres = moved_centres(sums, counts, distortion, 0)[0]
    torch.testing.assert_close(centres[2], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close((centres[0] + centres[1]) / 2, torch.tensor([1.0, 0.0]))
    assert not torch.equal(centres[0], centres[1])


@pytest.mark.parametrize(("mode", "shared", "pooled"), [("finetune", 0, 23), ("frozen", 0, 8), ("shared", 15, 8)])
def test_layouts_cut_and_restore_models(mode: str, shared: int, pooled: int) -> None:
    torch.manual_seed(0)
    models = [Classifier(nn.Linear(4, 3), nn.Linear(3, 2)) for _ in range(2)]
    layout = PoolLayout(mode)  # type: ignore[arg-type]
    parts = [layout.parts(model) for model in models]
    assert (parts[0][0].numel(), parts[0][1].numel()) == (shared, pooled)
    target = Classifier(nn.Linear(4, 3), nn.Linear(3, 2))
    if mode == "frozen":
        target.encoder = models[1].encoder
    layout.load(target, PoolSet(parts[1][0], torch.stack([part[1] for part in parts])), 1)
    x = torch.rand(5, 4)
    assert torch.equal(target(x), models[1](x))
