"""The roofline and the count of allocations, which need neither Triton nor a GPU."""

from __future__ import annotations

import csv
import io
from contextlib import redirect_stdout

import pytest
import torch

from secure_fl_kernels import reference
from secure_fl_kernels.cpu import ntxent
from secure_fl_kernels.proof import roofline
from secure_fl_kernels.proof.memory import allocations

H100 = next(device for device in roofline.DEVICES if device.name == "H100")


def test_floors_by_hand() -> None:
    """N = 32,768, D = 128, bf16: 0.275 TFLOP forward, 1.07e9 exponentials, 256 blocks that read 8
    MiB each through L2.
    """
    forward, backward = roofline.passes("ntxent", 32768, 128, "bf16").values()
    assert forward.flop == 2 * 32768**2 * 128
    assert backward.flop == 2 * forward.flop
    assert forward.exps == backward.exps == 32768**2
    assert forward.l2 == 256 * 32768 * 128 * 2
    assert forward.memory < 10e6
    bound, seconds = forward.floor(H100, "bf16")
    assert (bound, round(seconds * 1e3, 2)) == ("L2", 0.39)
    bound, seconds = backward.floor(H100, "bf16")
    assert (bound, round(seconds * 1e3, 2)) == ("tensor", 0.69)


def test_every_bound_can_bind() -> None:
    assert {row.bound for row in roofline.table((8192,), (16, 32, 128, 512))} == {
        "tensor",
        "exponential",
        "L2",
    }
    assert roofline.Pass(0, 0, 0, 3e12).floor(H100, "bf16") == ("memory", pytest.approx(1.0))


def test_no_pass_is_faster_than_the_tensor_cores() -> None:
    for row in roofline.table():
        device = next(device for device in roofline.DEVICES if device.name == row.device)
        assert 0 < row.tflops <= device.tensor[row.precision] * (1 + 1e-9)


def test_the_table_says_that_it_is_a_model() -> None:
    written = io.StringIO()
    with redirect_stdout(written):
        roofline.main()
    rows = list(csv.DictReader(written.getvalue().splitlines()))
    assert {row["basis"] for row in rows} == {"model, not measured"}
    assert {row["device"] for row in rows} == {"A100", "H100", "B200", "MI300X"}
    assert len({tuple(row.values())[:6] for row in rows}) == len(rows)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="triplet"):
        roofline.passes("triplet", 8, 8, "bf16")


def test_a_matrix_of_similarities_shows() -> None:
    z = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    with allocations() as plain:
        reference.nt_xent_loss(z[:300], z[300:], 0.5)
    with allocations() as tiled:
        ntxent.forward(z, 0.5, None)
    assert plain.largest == 600 * 600 * 4
    assert plain.total >= 2 * plain.largest
    assert tiled.largest <= 256 * 256 * 4


def test_views_and_writes_in_place_allocate_nothing() -> None:
    x = torch.ones(64, 64)
    with allocations() as counted:
        x.view(-1).mul_(2)
        x[3:].T.add_(1)
    assert (counted.largest, counted.total) == (0, 0)
