"""The operators against the reference: values, gradients, every provider, and what torch asks of
an operator.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl_kernels import dispatch, functional, operators, reference
from secure_fl_kernels.cpu import ntxent, tiles, uniform
from secure_fl_kernels.cpu import threads as cpu_threads
from secure_fl_kernels.subspace import Subspace

GOLDEN = Path(__file__).parents[1] / "data" / "ssd_golden.npz"


@pytest.fixture
def on_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "cpu")


def rows(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
    )


def relative(a: Tensor, b: Tensor) -> float:
    """Error relative to `b`; absolute where `b` is next to nothing, as at N = 1."""
    return float((a - b).norm() / b.norm().clamp_min(1e-3))


def agree(
    n: int,
    d: int,
    temperature: float,
    t: float,
    dtype: torch.dtype = torch.float64,
    tolerance: float = 1e-12,
) -> None:
    """Both quadratic losses equal the float64 reference, and so do their gradients."""
    first, second = rows(n, d, 1, dtype), rows(n, d, 2, dtype)
    wide = [x.detach().double().requires_grad_() for x in (first, second)]
    got, expected = (
        functional.nt_xent_loss(first, second, temperature),
        reference.nt_xent_loss(wide[0], wide[1], temperature),
    )
    assert float((got - expected).abs().detach()) <= tolerance * max(
        1, float(expected.abs().detach())
    )
    for mine, theirs in zip(
        torch.autograd.grad(got, (first, second)), torch.autograd.grad(expected, wide), strict=True
    ):
        assert relative(mine.double(), theirs) <= 10 * tolerance
    if n >= 2:
        got, expected = functional.uniformity_loss(first, t), reference.uniformity_loss(wide[0], t)
        assert float((got - expected).abs().detach()) <= tolerance * max(
            1, float(expected.abs().detach())
        )
        assert (
            relative(
                torch.autograd.grad(got, first)[0].double(),
                torch.autograd.grad(expected, wide[0])[0],
            )
            <= 10 * tolerance
        )


@pytest.mark.usefixtures("on_tiles")
@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 300), d=st.integers(2, 40), temperature=st.floats(0.02, 2), t=st.floats(0.1, 8)
)
def test_any_size_temperature_and_scale(n: int, d: int, temperature: float, t: float) -> None:
    agree(n, d, temperature, t)


@pytest.mark.usefixtures("on_tiles")
def test_one_dimension_has_values_and_no_gradient() -> None:
    """Unit rows are ±1 there, whatever their length, so the gradient is rounding alone."""
    z, other = (torch.sign(rows(255, 1, seed).detach()).requires_grad_() for seed in (1, 2))
    for got, expected in (
        (functional.nt_xent_loss(z, other, 0.1), reference.nt_xent_loss(z, other, 0.1)),
        (functional.uniformity_loss(z), reference.uniformity_loss(z)),
    ):
        assert abs(got.item() - expected.item()) < 1e-12
        assert torch.autograd.grad(got, z)[0].abs().max() < 1e-12


@pytest.mark.usefixtures("on_tiles")
@pytest.mark.parametrize("n", [127, 128, 129, 256, 257, 511, 513])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("fewest", [0, 4096])
def test_ragged_tiles_on_any_number_of_threads(
    n: int, threads: int, fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_threads, "_FEWEST_ROWS", fewest)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        agree(n, 6, 0.2, 2.0)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


FORKED = """
import os
import torch
from secure_fl_kernels import uniformity_loss

torch.set_num_threads(2)
z = torch.randn(4096, 4)
value = uniformity_loss(z)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(uniformity_loss(z), value) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_fork_has_threads_of_its_own() -> None:
    """Those of its parent are not there: it would wait for them for ever."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


@pytest.mark.usefixtures("on_tiles")
def test_single_precision_is_as_good_as_the_reference() -> None:
    agree(700, 64, 0.1, 2.0, torch.float32, 1e-6)


@pytest.mark.usefixtures("on_tiles")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    first, second = rows(40, 8, 1).detach().to(dtype), rows(40, 8, 2).detach().to(dtype)
    torch.testing.assert_close(
        functional.nt_xent_loss(first, second),
        reference.nt_xent_loss(first.float(), second.float()),
    )
    torch.testing.assert_close(
        functional.uniformity_loss(first), reference.uniformity_loss(first.float())
    )


@pytest.mark.parametrize("provider", ["auto", "cpu", "reference"])
@pytest.mark.parametrize("case", ["small", "odd", "paper"])
def test_golden_values_for_every_provider(
    provider: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, provider)
    with np.load(GOLDEN) as golden:
        z1, z2 = (
            torch.from_numpy(golden[f"{case}/{name}"]).double().requires_grad_()
            for name in ("z1", "z2")
        )
        losses = {
            "ntxent": functional.nt_xent_loss(z1, z2, float(golden[f"{case}/temperature"])),
            "uniform": (functional.uniformity_loss(z1) + functional.uniformity_loss(z2)) / 2,
        }
        for name, loss in losses.items():
            assert loss.item() == pytest.approx(float(golden[f"{case}/{name}"]), abs=1e-9)
            gradients = torch.autograd.grad(loss, (z1, z2))
            for key, gradient in zip(("z1", "z2"), gradients, strict=True):
                if f"{case}/{name}.grad_{key}" in golden:
                    torch.testing.assert_close(
                        gradient,
                        torch.from_numpy(golden[f"{case}/{name}.grad_{key}"]),
                        atol=1e-8,
                        rtol=0,
                    )


@pytest.mark.usefixtures("on_tiles")
def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(
        lambda a, b: functional.nt_xent_loss(a, b, 0.3), (rows(5, 3), rows(5, 3, 1))
    )
    assert torch.autograd.gradcheck(functional.uniformity_loss, (rows(6, 3),))


def test_operators_keep_torchs_contract() -> None:
    z = reference.normalize(rows(8, 3)).detach().requires_grad_()
    torch.library.opcheck(operators.ntxent, (z, None, 0.3, 1.0, "code", "cpu"))
    torch.library.opcheck(operators.uniformity, (z, None, 1, 2.0, 1.0, "code", "cpu"))


@pytest.mark.usefixtures("on_tiles")
def test_a_compiled_training_step_is_one_graph() -> None:
    weight = rows(6, 6, 3).detach()

    def step(x: Tensor) -> Tensor:
        z = torch.relu(x @ weight)
        return functional.nt_xent_loss(z, z.flip(1), 0.3) + functional.uniformity_loss(z)

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (10, 17):
        x = rows(n, 6, n)
        torch.testing.assert_close(
            torch.autograd.grad(compiled(x), x), torch.autograd.grad(step(x), x)
        )


@pytest.mark.usefixtures("on_tiles")
def test_strides_zero_rows_and_nan() -> None:
    wide = rows(12, 10).detach()
    torch.testing.assert_close(
        functional.uniformity_loss(wide[::2, 1::2]),
        reference.uniformity_loss(wide[::2, 1::2].contiguous()),
    )
    wide[3] = 0
    zero = wide.clone().requires_grad_()
    torch.testing.assert_close(
        functional.nt_xent_loss(zero, wide), reference.nt_xent_loss(wide, wide)
    )
    assert torch.autograd.grad(functional.uniformity_loss(zero), zero)[0][3].abs().max() == 0
    wide[5, 2] = torch.nan
    assert torch.isnan(functional.nt_xent_loss(wide, wide))
    assert torch.isnan(functional.uniformity_loss(wide))


@pytest.mark.usefixtures("on_tiles")
def test_repeats_bit_for_bit() -> None:
    z, other = rows(600, 20), rows(600, 20, 1)
    first, again = (
        torch.autograd.grad(functional.nt_xent_loss(z, other, 0.1), z)[0] for _ in range(2)
    )
    assert torch.equal(first, again)


@pytest.mark.usefixtures("on_tiles")
@pytest.mark.parametrize("temperature", [0.001, 0.005])
def test_temperatures_out_of_range_take_the_reference(temperature: float) -> None:
    z, other = rows(30, 5, dtype=torch.float32).detach(), rows(30, 5, 1, torch.float32).detach()
    assert not ntxent.fits(60, temperature, torch.float32)
    assert torch.isfinite(functional.nt_xent_loss(z, other, temperature))
    assert not uniform.fits(25.0, torch.float32)
    assert torch.equal(functional.uniformity_loss(z, 25.0), reference.uniformity_loss(z, 25.0))


def test_tiles_cover_the_triangle_once() -> None:
    for count in (1, 255, 256, 257, 1000, 4500):
        for found, rows in (
            (tiles.triangle(count), count),
            (tiles.two_views(count // 2), count // 2 * 2),
        ):
            seen = torch.zeros(rows, rows, dtype=torch.int8)
            for tile in found:
                seen[tile.top : tile.bottom, tile.left : tile.right] += 1
            assert bool((seen.tril() == torch.ones_like(seen).tril()).all())


@pytest.mark.parametrize("half", [1, 127, 128, 300])
def test_itself_and_the_partner_lie_on_diagonals_left_out(half: int) -> None:
    left_out = torch.zeros(2 * half, 2 * half, dtype=torch.bool)
    for tile in tiles.two_views(half):
        if tile.zero:
            left_out[tile.top : tile.bottom, tile.left : tile.right].fill_diagonal_(True)
    index = torch.arange(2 * half)
    assert torch.equal(
        (left_out | left_out.T).nonzero(), ((index[:, None] - index) % half == 0).nonzero()
    )


_MEMORY = """
import resource, sys, torch
from secure_fl_kernels import functional
torch.set_num_threads(1)
z = torch.randn(4096, 128, requires_grad=True); other = torch.randn(4096, 128)
functional.nt_xent_loss(z[:300], other[:300]).backward()
functional.uniformity_loss(z[:600]).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "ntxent":
    functional.nt_xent_loss(z, other, 0.2).backward()
else:
    functional.uniformity_loss(torch.cat([z, other])).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("loss", ["ntxent", "uniformity"])
def test_no_matrix_of_similarities_is_held(loss: str) -> None:
    """8,192 rows: the matrix alone would be 256 MiB; inputs, unit rows and gradients are about 4
    MiB each.
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, loss], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 48


@pytest.mark.usefixtures("on_tiles")
def test_autocast_does_not_reach_the_losses() -> None:
    first, second = rows(300, 16, 1, torch.float32), rows(300, 16, 2, torch.float32)
    own = Subspace(torch.tensor([1, 3]))
    for loss in (
        lambda: functional.nt_xent_dsr_loss(first, second, 0.2, own)[0],
        lambda: functional.uniformity_loss(first),
        lambda: functional.spectral_moment(first, second),
    ):
        plain = loss()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = loss()
        assert torch.equal(plain, cast)


@pytest.mark.usefixtures("on_tiles")
def test_reduced_precision_is_opted_into_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """On processors with AMX the products are bfloat16 with float32 sums; on others
    nothing changes.
    """
    first, second = rows(700, 32, 1, torch.float32), rows(700, 32, 2, torch.float32)
    wide = [x.detach().double().requires_grad_() for x in (first, second)]
    exact = torch.autograd.grad(reference.nt_xent_loss(wide[0], wide[1], 0.2), wide)
    torch.set_float32_matmul_precision("medium")
    try:
        got = torch.autograd.grad(functional.nt_xent_loss(first, second, 0.2), (first, second))
    finally:
        torch.set_float32_matmul_precision("highest")
    for mine, theirs in zip(got, exact, strict=True):
        # products of rows that are rounded to bfloat16, recomputed in float64, differ from exact
        # ones by 2.7e-4 here; one rounding is 2⁻⁹
        assert relative(mine.double(), theirs) <= 2**-11


@pytest.mark.usefixtures("on_tiles")
def test_vmap_goes_one_by_one() -> None:
    many = rows(40, 4).detach().reshape(4, 10, 4)
    expected = torch.stack([functional.uniformity_loss(z) for z in many])
    torch.testing.assert_close(torch.func.vmap(functional.uniformity_loss)(many), expected)


def test_a_trained_loss_keeps_its_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views alike to 1e-4 at a low temperature: the loss is 1e-9, and float32 still has four digits
    of it and of its gradient.
    """
    monkeypatch.setenv(dispatch.VARIABLE, "cpu")
    base = torch.eye(32, dtype=torch.float64)
    first, second = (base + 1e-4 * rows(32, 32, seed).detach() for seed in (1, 2))
    wide = [x.requires_grad_() for x in (first, second)]
    single = [x.detach().float().requires_grad_() for x in wide]
    exact, got = reference.nt_xent_loss(*wide, 0.04), functional.nt_xent_loss(*single, 0.04)
    assert exact.item() < 1e-8
    assert got.item() == pytest.approx(exact.item(), rel=1e-3)
    for mine, theirs in zip(
        torch.autograd.grad(got, single), torch.autograd.grad(exact, wide), strict=True
    ):
        assert float((mine.double() - theirs).norm()) < 1e-3 * float(theirs.norm())
