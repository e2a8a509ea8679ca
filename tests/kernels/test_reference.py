"""The losses against golden vectors from independent code, gradcheck, closed forms and
their edges.
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

from secure_fl_kernels import reference

GOLDEN = Path(__file__).parents[1] / "data" / "ssd_golden.npz"
CASES = ("small", "odd", "paper")
VALUE, GRADIENT = 1e-9, 1e-8

Inputs = dict[str, Tensor]
Loss = Callable[[Inputs], Tensor]


def over_views(loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    return lambda x: (loss(x["h1"], x["z1"]) + loss(x["h2"], x["z2"])) / 2


def losses(golden: dict[str, np.ndarray], case: str) -> dict[str, Loss]:
    dims, alpha = torch.from_numpy(golden[f"{case}/subspace"]), float(golden[f"{case}/alpha"])
    basis, temperature = (
        torch.from_numpy(golden[f"{case}/basis"]),
        float(golden[f"{case}/temperature"]),
    )

    def dsr(form: str, basis: Tensor | None = None) -> Loss:
        return over_views(lambda h, z: reference.dsr_loss(z, dims, alpha, basis, form))

    return {
        "align": lambda x: reference.align_loss(x["z1"], x["z2"]),
        "uniform": over_views(lambda h, z: reference.uniformity_loss(z)),
        "ntxent": lambda x: reference.nt_xent_loss(x["z1"], x["z2"], temperature),
        "dsr_code_rotated": dsr("code", basis),
        "dsr_code_axis": dsr("code"),
        "dsr_paper_axis": dsr("paper"),
        "dsr_paper_normtarget_axis": dsr("normalized"),
        "pd_code": over_views(lambda h, z: reference.distillation_loss(h, z, 0.5)),
        "pd_paper": over_views(
            lambda h, z: reference.distillation_loss(h, z, 1.0, "encoder_to_projector")
        ),
    }


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.mark.parametrize("case", CASES)
def test_golden_values_and_gradients(golden: dict[str, np.ndarray], case: str) -> None:
    compared = 0
    for name, loss in losses(golden, case).items():
        x = {
            k: torch.from_numpy(golden[f"{case}/{k}"]).double().requires_grad_()
            for k in ("h1", "h2", "z1", "z2")
        }
        value = loss(x)
        assert value.item() == pytest.approx(float(golden[f"{case}/{name}"]), abs=VALUE), name
        value.backward()
        for key, tensor in x.items():
            expected = golden.get(f"{case}/{name}.grad_{key}")
            if expected is not None:
                torch.testing.assert_close(
                    tensor.grad, torch.from_numpy(expected), atol=GRADIENT, rtol=0
                )
                compared += 1
    assert compared == {"small": 22, "odd": 22, "paper": 0}[case]


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(
        n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).requires_grad_()


@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 1), (5, 7), (8, 4)])
def test_gradcheck(n: int, d: int) -> None:
    first, second = rows(n, d), rows(n, d, 1)
    checks: list[Callable[..., Tensor]] = [
        reference.align_loss,
        reference.spectral_attraction,
        reference.spectral_moment,
        lambda a, b: reference.nt_xent_loss(a, b, 0.3),
        lambda a, b: reference.distillation_loss(a, b, 0.5),
        lambda a, b: reference.distillation_loss(a, b, 0.7, "encoder_to_projector"),
    ]
    for loss in checks:
        assert torch.autograd.gradcheck(loss, (first, second))
    if n >= 2:
        assert torch.autograd.gradcheck(reference.uniformity_loss, (first,))


@pytest.mark.parametrize("form", ["code", "paper", "normalized"])
@pytest.mark.parametrize("rotated", [False, True])
def test_dsr_gradient_equals_that_of_a_twin_whose_target_is_fixed(form: str, rotated: bool) -> None:
    """Plain gradcheck fails by design: the target is detached. The twin's target is a constant, so
    gradcheck holds for it.
    """
    z, dims = rows(6, 5), torch.tensor([1, 3])
    basis = (
        torch.linalg.qr(
            torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        )[0]
        if rotated
        else None
    )
    target = reference.dsr_target(z, dims, 10.0, basis).detach()

    def twin(z: Tensor) -> Tensor:
        fixed = target if form == "paper" else reference.normalize(target)
        residual = reference.normalize(z) - fixed
        return residual.norm() / len(z) if form == "code" else residual.square().sum(1).mean()

    assert torch.autograd.gradcheck(twin, (z,))
    loss = reference.dsr_loss(z, dims, 10.0, basis, form)
    torch.testing.assert_close(loss, twin(z))
    torch.testing.assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(twin(z), z))


def test_paper_dsr_has_the_closed_form_its_stop_gradient_gives() -> None:
    z = torch.nn.functional.normalize(rows(4, 6), dim=1).detach().requires_grad_()
    dims = torch.tensor([0, 4])
    own = z[:, dims].square().sum(1).mean()
    loss = reference.dsr_loss(z, dims, 10.0, form="paper")
    assert loss.item() == pytest.approx(81 * own.item())
    (got,) = torch.autograd.grad(loss, z)
    (expected,) = torch.autograd.grad(
        -9 * reference.normalize(z)[:, dims].square().sum(1).mean(), z
    )
    torch.testing.assert_close(got, expected)


def test_values_the_papers_imply() -> None:
    """Uniform points on the 511-sphere, and isotropic embeddings under DSR with the
    paper's sizes.
    """
    z = torch.randn(4000, 512, generator=torch.Generator().manual_seed(0))
    assert reference.uniformity_loss(z).item() == pytest.approx(-3.984, abs=0.003)
    few, dims = z[:128], torch.arange(51)
    assert reference.dsr_loss(few, dims, form="paper").item() == pytest.approx(8.07, abs=0.3)
    assert reference.dsr_loss(few, dims, form="normalized").item() == pytest.approx(0.846, abs=0.02)
    assert reference.dsr_loss(few, dims, form="code").item() == pytest.approx(0.0813, abs=0.001)


@pytest.mark.parametrize("form", ["code", "paper", "normalized"])
def test_alpha_one_switches_dsr_off(form: str) -> None:
    z = rows(5, 4)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0]
    for u in (None, basis):
        loss = reference.dsr_loss(z, torch.tensor([2]), 1.0, u, form)
        assert loss.item() == 0
        assert torch.autograd.grad(loss, z)[0].abs().max() == 0


def test_code_dsr_is_flat_where_target_and_embedding_agree() -> None:
    """Rows that lie in the client's own dimensions are their own target: the square
    root's corner.
    """
    z = torch.zeros(3, 4, dtype=torch.float64)
    z[:, 1] = torch.tensor([1.0, 2.0, 3.0])
    z.requires_grad_()
    loss = reference.dsr_loss(z, torch.tensor([1]), 10.0)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert z.grad.abs().max() == 0


def every_loss(z: Tensor, other: Tensor) -> dict[str, Tensor]:
    dims = torch.tensor([0])
    return {
        "align": reference.align_loss(z, other),
        "uniformity": reference.uniformity_loss(z),
        "nt_xent": reference.nt_xent_loss(z, other),
        "attraction": reference.spectral_attraction(z, other),
        "moment": reference.spectral_moment(z, other),
        **{
            form: reference.dsr_loss(z, dims, form=form) for form in ("code", "paper", "normalized")
        },
        "distillation": reference.distillation_loss(z, other),
    }


@pytest.mark.parametrize("tiny", [0.0, 1e-13, 1e-30])
def test_zero_rows_are_finite_and_get_no_gradient(tiny: float) -> None:
    z, other = rows(4, 3).detach(), rows(4, 3, 1).detach()
    z[1] = tiny
    z.requires_grad_()
    for name, loss in every_loss(z, other).items():
        (gradient,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(loss), name
        assert torch.isfinite(gradient).all(), name
        if name != "distillation":
            assert gradient[1].abs().max() == 0, name


def test_nan_passes_through() -> None:
    z, other = rows(4, 3).detach(), rows(4, 3, 1).detach()
    z[2, 1] = torch.nan
    for name, loss in every_loss(z, other).items():
        assert torch.isnan(loss), name
    assert torch.isnan(reference.dsr_loss(z, torch.tensor([0]), 1.0))


def test_nt_xent_of_one_example_is_zero() -> None:
    z = rows(1, 4)
    loss = reference.nt_xent_loss(z, z * 2)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, z)[0].abs().max() == 0


def test_distillation_of_equals_is_zero_and_positive_otherwise() -> None:
    h, z = rows(5, 4), rows(5, 4, 1)
    for direction in ("projector_to_encoder", "encoder_to_projector"):
        assert reference.distillation_loss(h, h, 0.5, direction).item() == pytest.approx(
            0, abs=1e-15
        )
        assert reference.distillation_loss(h, z, 0.5, direction).item() > 0


def test_refusals() -> None:
    z = rows(3, 2)
    with pytest.raises(ValueError, match="pairs"):
        reference.uniformity_loss(z[:1])
    with pytest.raises(ValueError, match="shapes differ"):
        reference.align_loss(z, z[:2])
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        reference.nt_xent_loss(z[0], z[0])
    with pytest.raises(TypeError, match="int64"):
        reference.uniformity_loss(torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="unknown form"):
        reference.dsr_loss(z, torch.tensor([0]), form="printed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown direction"):
        reference.distillation_loss(z, z, direction="sideways")  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 9),
    d=st.integers(1, 9),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_invariances(n: int, d: int, scale: float, seed: int) -> None:
    """Scale of rows, order of examples and a common rotation change none of the
    contrastive losses.
    """
    z, other = rows(n, d, seed).detach(), rows(n, d, seed + 100).detach()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    rotation = torch.linalg.qr(
        torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )[0]
    for loss in (
        reference.align_loss,
        reference.nt_xent_loss,
        reference.spectral_moment,
        lambda a, b: reference.uniformity_loss(a),
    ):
        value = loss(z, other)
        for changed in (
            loss(scale * z, other),
            loss(z[order], other[order]),
            loss(z @ rotation, other @ rotation),
        ):
            torch.testing.assert_close(changed, value, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z, other = rows(6, 4).detach().to(dtype), rows(6, 4, 1).detach().to(dtype)
    for name, loss in every_loss(z, other).items():
        assert loss.dtype == torch.float32, name
        torch.testing.assert_close(loss, every_loss(z.float(), other.float())[name])
