"""Sketches in parts: compared by the labels that two clients share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.sketch_kinds import k_means
from secure_fl.pools.monitor import adjusted_rand
from secure_fl.pools.sketch import (
    each_number,
    first_centres,
    moved_centres,
    nearest_centre,
    parts_from,
    parts_of,
    sketch_of,
)

CLASSES, WIDTH, GROUPS, CLIENTS = 4, 6, 3, 12


def skewed(seed: int, examples: int = 80) -> tuple[list[tuple[Tensor, Tensor]], list[int]]:
    """Clients in three groups that shift every example a little, while labels shift it much; each
    client has examples of two labels, one of them rare.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = 2.0 * torch.randn(CLASSES, WIDTH, generator=generator)
    shifts = 0.8 * torch.randn(GROUPS, WIDTH, generator=generator)
    clients, groups = [], [i % GROUPS for i in range(CLIENTS)]
    for i, group in enumerate(groups):
        # the two labels of a client overlap with those of others of its group, in a ring
        common, rare = (i // GROUPS) % CLASSES, (i // GROUPS + 1) % CLASSES
        y = torch.where(torch.rand(examples, generator=generator) < 0.85, common, rare)
        noise = 0.3 * torch.randn(examples, WIDTH, generator=generator)
        clients.append((labels[y] + shifts[group] + noise, y))
    return clients, groups


def test_parts_are_means_by_label_and_weigh_the_same() -> None:
    h = torch.tensor([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    y = torch.tensor([1, 1, 1, 0, 2, 1])
    sketch, weights = parts_of(h, y, 4)
    expected = torch.tensor([[0, 0], [2.6 / 4, 1.8 / 4], [0, 0], [0, 0]])
    torch.testing.assert_close(sketch.view(4, 2), expected)
    assert weights.tolist() == [0, 1, 0, 0], "of the other labels there is one example each"
    _, even = parts_of(h.repeat(3, 1), y.repeat(3), 4)
    torch.testing.assert_close(even, torch.tensor([1.0, 1.0, 1.0, 0.0]) / 3)


def test_a_client_of_strays_alone_has_the_part_it_has_most_of() -> None:
    sums, counts = torch.eye(3, 2), torch.tensor([1.0, 2.0, 0.4])
    sketch, weights = parts_from(sums, counts, 5.0)
    assert weights.tolist() == [0, 1, 0]
    torch.testing.assert_close(sketch.view(3, 2)[1], torch.tensor([0.0, 0.5]))
    for nothing in (torch.zeros(3), torch.full((3,), -2.0)):
        made, weights = parts_from(torch.zeros(3, 2), nothing, 5.0)
        assert bool(made.isfinite().all())
        assert float(weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(4))
def test_groups_that_skewed_labels_hide_are_found_by_shared_labels(seed: int) -> None:
    clients, groups = skewed(seed)
    plain = torch.stack([sketch_of(x) for x, _ in clients])
    parts = [parts_of(x, y, CLASSES) for x, y in clients]
    made, weights = (torch.stack(each) for each in zip(*parts, strict=True))
    assert adjusted_rand(k_means(plain, torch.zeros(CLIENTS, 0), GROUPS, seed), groups) < 0.5
    assert adjusted_rand(k_means(made, weights, GROUPS, seed), groups) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_rounds_never_move_clients_further_from_their_centres(seed: int) -> None:
    """Lloyd's step, held against means by hand; a label nobody in a block has stays at the mean."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(CLIENTS, CLASSES, WIDTH))
    weights = rng.random((CLIENTS, CLASSES)) * (rng.random((CLIENTS, CLASSES)) < 0.5)
    weights[:, 0] += 0.01
    weights /= weights.sum(1, keepdims=True)
    w = torch.from_numpy(weights).float()
    each = each_number(w, CLASSES * WIDTH).double()
    points = torch.from_numpy(values).flatten(1)
    centres, before = first_centres(1, GROUPS, CLASSES * WIDTH, 1.0, seed, CLASSES), np.inf
    for turn in range(5):
        chosen, far = zip(
            *(nearest_centre(one, centres, own) for one, own in zip(points, each, strict=True)),
            strict=True,
        )
        choice, distances = torch.cat(chosen), torch.cat(far)
        by_hand = (
            weights[0]
            * ((values[0] - centres[0, choice[0]].view(CLASSES, WIDTH).numpy()) ** 2).sum(1)
        ).sum()
        assert float(distances[0]) == pytest.approx(by_hand, rel=1e-5)
        assert float(distances.sum()) <= before * (1 + 1e-6)
        before = float(distances.sum())
        member = torch.nn.functional.one_hot(choice, GROUPS).double().T
        if not bool(member.sum(1).all()):
            return
        sums, shares = member @ (each * points), member @ each
        distortion = member @ distances
        centres = moved_centres(
            sums[None], member.sum(1)[None], distortion[None], turn, shares[None]
        )
        for pool in range(GROUPS):
            inside = (choice == pool).numpy()
            total = weights[inside].sum(0)[:, None]
            mean = (weights[inside][..., None] * values[inside]).sum(0) / np.where(total, total, 1)
            np.testing.assert_allclose(centres[0, pool].view(CLASSES, WIDTH), mean, atol=1e-5)


def test_one_part_is_an_ordinary_sketch() -> None:
    sketch, centres = torch.randn(WIDTH), torch.randn(2, GROUPS, WIDTH)
    ones = each_number(torch.zeros(0), WIDTH)
    assert ones.tolist() == [1.0] * WIDTH
    for plain, weighed in zip(
        nearest_centre(sketch, centres), nearest_centre(sketch, centres, ones), strict=True
    ):
        assert torch.equal(plain, weighed)
    assert torch.equal(
        first_centres(2, GROUPS, WIDTH, 1.0, 3), first_centres(2, GROUPS, WIDTH, 1.0, 3, 1)
    )
    sums, counts, far = torch.randn(2, GROUPS, WIDTH), torch.ones(2, GROUPS), torch.ones(2, GROUPS)
    weighed = moved_centres(sums, counts, far, 0, counts[..., None].expand_as(sums))
    assert torch.equal(moved_centres(sums, counts, far, 0), weighed)
