"""Triton's losses against the float64 reference, interpreted or on a GPU; every launch is guarded
where it is interpreted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl_kernels import functional, joint_operators, operators, reference
from secure_fl_kernels.proof.guard import Traffic
from secure_fl_kernels.subspace import Subspace

pytestmark = [pytest.mark.triton, pytest.mark.gpu]

GOLDEN = Path(__file__).parents[2] / "data" / "ssd_golden.npz"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 5e-3}
"""Relative, against float64 on the same rounded inputs."""

Terms = Callable[..., tuple[Tensor, ...]]


def views(n: int, d: int, dtype: torch.dtype, device: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n, d, generator=generator)
    second = first + 0.7 * torch.randn(n, d, generator=generator)
    return tuple(z.to(device, dtype).requires_grad_() for z in (first, second))  # type: ignore[return-value]


def wide(*tensors: Tensor) -> list[Tensor]:
    return [z.detach().double().requires_grad_() for z in tensors]


def assert_close(
    got: tuple[Tensor, ...],
    expected: tuple[Tensor, ...],
    z: tuple[Tensor, ...],
    exact: list[Tensor],
    tolerance: float,
) -> None:
    """Values, and the gradient of a sum of them with unequal weights."""
    for mine, theirs in zip(got, expected, strict=True):
        assert abs(float(mine.detach()) - float(theirs.detach())) <= tolerance * max(
            1.0, abs(float(theirs.detach()))
        )
    total, truth = (
        sum((k + 1) * term for k, term in enumerate(terms)) for terms in (got, expected)
    )
    assert isinstance(total, Tensor)
    assert isinstance(truth, Tensor)
    for mine, theirs in zip(
        torch.autograd.grad(total, z), torch.autograd.grad(truth, exact), strict=True
    ):
        assert mine.dtype == z[0].dtype
        assert float((mine.double() - theirs).norm()) <= tolerance * max(float(theirs.norm()), 1e-3)


def plain_dsr(first: Tensor, second: Tensor, own: Subspace) -> Tensor:
    return (
        sum(
            reference.dsr_loss(z, own.dims, own.alpha, own.basis, own.form) for z in (first, second)
        )
        / 2
    )  # type: ignore[return-value]


def subspace(d: int, form: str, rotated: bool, count: int = 2) -> Subspace:
    basis = (
        torch.linalg.qr(
            torch.randn(d, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        )[0]
        if rotated
        else None
    )
    return Subspace(
        torch.randperm(d, generator=torch.Generator().manual_seed(4))[:count], 10.0, basis, form
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "d"), [(5, 3), (70, 100), (33, 150)])
def test_nt_xent_with_the_regulariser(n: int, d: int, dtype: torch.dtype, device: str) -> None:
    z, own = views(n, d, dtype, device), subspace(d, "code", rotated=True)
    exact = wide(*z)
    got = functional.nt_xent_dsr_loss(*z, 0.2, own)
    expected = (reference.nt_xent_loss(*exact, 0.2), plain_dsr(exact[0], exact[1], own))
    assert_close(got, expected, z, exact, TOLERANCE[dtype])


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_examples(n: int, device: str) -> None:
    z = views(n, 3, torch.float32, device)
    exact = wide(*z)
    assert_close(
        (functional.nt_xent_loss(*z, 0.2),), (reference.nt_xent_loss(*exact, 0.2),), z, exact, 1e-5
    )
    assert_close(
        (functional.info_nce_loss(*z, 0.2),),
        (reference.info_nce_loss(*exact, 0.2),),
        z,
        exact,
        1e-5,
    )
    if n == 2:
        assert_close(
            (functional.uniformity_loss(z[0]),),
            (reference.uniformity_loss(exact[0]),),
            z[:1],
            exact[:1],
            1e-5,
        )


@pytest.mark.parametrize("form", ["code", "paper", "normalized"])
@pytest.mark.parametrize("rotated", [False, True])
def test_every_form_and_basis_beside_either_loss(form: str, rotated: bool, device: str) -> None:
    z, own = views(20, 24, torch.float32, device), subspace(24, form, rotated, 5)
    exact = wide(*z)
    dsr = plain_dsr(exact[0], exact[1], own)
    assert_close(
        functional.nt_xent_dsr_loss(*z, 0.3, own),
        (reference.nt_xent_loss(*exact, 0.3), dsr),
        z,
        exact,
        1e-5,
    )
    spread = (
        reference.align_loss(*exact),
        (reference.uniformity_loss(exact[0]) + reference.uniformity_loss(exact[1])) / 2,
    )
    dsr = plain_dsr(exact[0], exact[1], own)
    assert_close(functional.align_uniformity_dsr_loss(*z, 2.0, own), (*spread, dsr), z, exact, 1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "d"), [(5, 3), (100, 40), (33, 150)])
def test_alignment_and_uniformity(n: int, d: int, dtype: torch.dtype, device: str) -> None:
    z = views(n, d, dtype, device)
    exact = wide(*z)
    expected = (
        reference.align_loss(*exact),
        (reference.uniformity_loss(exact[0]) + reference.uniformity_loss(exact[1])) / 2,
    )
    assert_close(functional.align_uniformity_loss(*z, 2.0), expected, z, exact, TOLERANCE[dtype])
    alone = (reference.uniformity_loss(exact[0], 4.0),)
    assert_close(
        (functional.uniformity_loss(z[0], 4.0),), alone, z[:1], exact[:1], TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "keys", "d"), [(3, 4, 4), (20, 90, 30), (40, 40, 150)])
def test_info_nce(n: int, keys: int, d: int, dtype: torch.dtype, device: str) -> None:
    q, k = views(n, d, dtype, device)[0], views(keys, d, dtype, device, 1)[1]
    exact = wide(q, k)
    assert_close(
        (functional.info_nce_loss(q, k, 0.2),),
        (reference.info_nce_loss(*exact, 0.2),),
        (q, k),
        exact,
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize("temperature", [0.02, 0.005])
def test_low_temperatures_take_a_running_maximum(temperature: float, device: str) -> None:
    """At 0.005 exponentials reach 2^288. Float32's similarities are good to 1e-7 / τ, which bounds
    what can be asked.
    """
    z = views(70, 20, torch.float32, device)
    exact, bound = wide(*z), 1e-6 / temperature
    assert_close(
        (functional.nt_xent_loss(*z, temperature),),
        (reference.nt_xent_loss(*exact, temperature),),
        z,
        exact,
        bound,
    )
    assert_close(
        (functional.info_nce_loss(*z, temperature),),
        (reference.info_nce_loss(*exact, temperature),),
        z,
        exact,
        bound,
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_what_is_linear_in_the_rows(dtype: torch.dtype, device: str) -> None:
    z = views(70, 40, dtype, device)
    exact, bound = wide(*z), TOLERANCE[dtype]
    assert_close(
        (functional.spectral_moment(*z),), (reference.spectral_moment(*exact),), z, exact, bound
    )
    for direction in ("projector_to_encoder", "encoder_to_projector"):
        got, expected = (
            functional.distillation_loss(*z, 0.5, direction),
            reference.distillation_loss(*exact, 0.5, direction),
        )  # type: ignore[arg-type]
        assert_close((got,), (expected,), z, exact, bound)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("groups", "size", "d"), [(3, 1, 5), (4, 5, 70), (2, 16, 20), (2, 17, 20)])
def test_groups(groups: int, size: int, d: int, dtype: torch.dtype, device: str) -> None:
    z = views(groups * size, d, dtype, device)
    exact = wide(*z)
    assert_close(
        functional.group_nt_xent_loss(*z, size, 0.2).unbind(),
        reference.group_nt_xent_loss(*exact, size, 0.2).unbind(),
        z,
        exact,
        TOLERANCE[dtype],
    )
    losses, by_first, by_second, square = functional.group_nt_xent_gradients(*z, size, 0.2)
    truth = torch.autograd.grad(reference.group_nt_xent_loss(*exact, size, 0.2).sum(), exact)
    squares = sum(part.reshape(groups, -1).square().sum(1) for part in truth)
    assert isinstance(squares, Tensor)
    torch.testing.assert_close(square.double(), squares, rtol=2 * TOLERANCE[dtype], atol=1e-9)
    assert losses.shape == (groups,)
    assert by_first.shape == by_second.shape == z[0].shape


@pytest.mark.parametrize("case", ["small", "odd"])
def test_golden_values_and_gradients(case: str, device: str) -> None:
    with np.load(GOLDEN) as file:
        golden = {
            name.removeprefix(f"{case}/"): torch.from_numpy(file[name])
            for name in file
            if name.startswith(f"{case}/")
        }
    z = tuple(golden[name].to(device, torch.float32).requires_grad_() for name in ("z1", "z2"))
    own = Subspace(golden["subspace"], float(golden["alpha"]), golden["basis"].double(), "code")
    nt_xent, dsr = functional.nt_xent_dsr_loss(z[0], z[1], float(golden["temperature"]), own)
    align, uniformity, again = functional.align_uniformity_dsr_loss(z[0], z[1], 2.0, own)
    losses = {"ntxent": nt_xent, "dsr_code_rotated": dsr, "align": align, "uniform": uniformity}
    assert float(again.detach()) == pytest.approx(float(dsr.detach()), rel=1e-6)
    for name, loss in losses.items():
        assert float(loss.detach()) == pytest.approx(float(golden[name]), rel=1e-5, abs=1e-6), name
        for key, gradient in zip(
            ("z1", "z2"), torch.autograd.grad(loss, z, retain_graph=True), strict=True
        ):
            expected = golden[f"{name}.grad_{key}"]
            assert float((gradient.double().cpu() - expected).norm()) <= 1e-5 * float(
                expected.norm()
            ), name


@settings(max_examples=12, deadline=None)
@given(
    n=st.integers(2, 80),
    d=st.integers(2, 140),
    temperature=st.floats(0.05, 1),
    t=st.floats(0.1, 6),
    alpha=st.floats(1, 50),
    dtype=st.sampled_from(list(TOLERANCE)),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    form=st.sampled_from(["paper", "normalized"]),
)
def test_any_size_scale_and_strength(
    n: int,
    d: int,
    temperature: float,
    t: float,
    alpha: float,
    dtype: torch.dtype,
    scale: float,
    form: str,
) -> None:
    where = "cuda" if torch.cuda.is_available() else "cpu"
    z = tuple((x.detach() * scale).requires_grad_() for x in views(n, d, dtype, where, n))
    exact, own = wide(*z), Subspace(torch.arange(max(1, d // 3)), alpha, None, form)  # type: ignore[arg-type]
    expected = (reference.nt_xent_loss(*exact, temperature), plain_dsr(exact[0], exact[1], own))
    got = functional.nt_xent_dsr_loss(z[0], z[1], temperature, own)
    for mine, theirs in zip(got, expected, strict=True):
        assert abs(float(mine.detach()) - float(theirs.detach())) <= TOLERANCE[dtype] * max(
            1.0, abs(float(theirs.detach()))
        )
    value, truth = functional.uniformity_loss(z[0], t), reference.uniformity_loss(exact[0], t)
    assert abs(float(value.detach()) - float(truth.detach())) <= TOLERANCE[dtype] * max(
        1.0, abs(float(truth.detach()))
    )


def test_strides_zero_rows_and_nan(device: str) -> None:
    base = torch.randn(30, 22, generator=torch.Generator().manual_seed(0)).to(device)
    first, second = base[::2, ::2], base[1::2, ::2]
    torch.testing.assert_close(
        functional.nt_xent_loss(first, second), reference.nt_xent_loss(first, second)
    )
    base[0], base[7] = 0, 1e-20
    z = base.clone().requires_grad_()
    for loss in (functional.nt_xent_loss(z[::2], z[1::2]), functional.uniformity_loss(z)):
        (gradient,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(gradient).all()
        assert gradient[[0, 7]].abs().max() == 0
    base[3, 1] = torch.nan
    for loss in (
        functional.nt_xent_loss(base[::2], base[1::2]),
        functional.uniformity_loss(base),
        functional.spectral_moment(base, base),
    ):
        assert torch.isnan(loss)


def test_repeats_bit_for_bit_and_in_any_order_of_programs(device: str) -> None:
    from secure_fl_kernels.proof import interpreter

    z, own = views(140, 20, torch.float32, device), subspace(20, "code", rotated=True)

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            sum(functional.nt_xent_dsr_loss(*z, 0.2, own)) + functional.uniformity_loss(z[0]), z
        )

    first = gradients()
    if device == "cpu":
        with interpreter.reversed_grid():
            again = gradients()
    else:
        again = gradients()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_operators_keep_torchs_contract(device: str) -> None:
    x, columns = (
        torch.randn(12, 5, device=device, requires_grad=True),
        torch.eye(5, 2, device=device),
    )
    settings = (0.3, 10.0, "normalized", "triton")
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operators.ntxent, (x, columns, *settings), test_utils=checks)
    torch.library.opcheck(operators.uniformity, (x, columns, 2, *settings), test_utils=checks)
    torch.library.opcheck(
        operators.infonce, (x, x.detach().flip(0), 0.3, "triton"), test_utils=checks
    )
    torch.library.opcheck(joint_operators.moment, (x,), test_utils=checks)
    torch.library.opcheck(
        joint_operators.distillation, (x, x.detach().flip(0), 0.5), test_utils=checks
    )
    torch.library.opcheck(
        joint_operators.group_ntxent, (x, x.detach().flip(0), 3, 0.3, "triton"), test_utils=checks
    )


@pytest.mark.parametrize("n", [64, 150])
def test_bytes_moved_are_the_models(n: int, device: str, guard: Traffic) -> None:
    """Every program of the row sums reads its own rows once, the positives' once more with them,
    and all columns.
    """
    from secure_fl_kernels.gpu import ntxent
    from secure_fl_kernels.gpu.launch import Tile
    from secure_fl_kernels.gpu.rows import project

    if device != "cpu":
        pytest.skip("traffic is counted by the interpreter")
    tile, width = Tile(64, 32, 64, 4, 1), 64
    z, *_ = project(torch.randn(2 * n, 50), None, 2, ntxent.scale_of(0.2))
    before = guard.loaded("row_sums_kernel")
    ntxent.row_sums(z, z, 2, n, n, 0.2, tile)
    programs, columns = 2 * -(-n // tile.rows), 2 * -(-n // tile.columns) * tile.columns
    assert (
        guard.loaded("row_sums_kernel") - before == programs * (3 * tile.rows + columns) * width * 4
    )
    assert guard.stored("row_sums_kernel") == 2 * 2 * n * 4


def test_nothing_quadratic_is_allocated(device: str) -> None:
    from secure_fl_kernels.gpu import ntxent
    from secure_fl_kernels.proof.memory import allocations

    x = torch.randn(600, 20, device=device)
    with allocations() as found:
        loss, z, inverse, statistics, own, _ = ntxent.forward(x, 0.2, None)
        ntxent.backward(
            torch.ones_like(loss), None, z, inverse, statistics, own, None, 0.2, 20, torch.float32
        )
    padded_rows = 2 * 384 * 32 * 4
    assert found.largest <= padded_rows, "600 × 600 similarities would be 1.4 MB"
