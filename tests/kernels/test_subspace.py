"""The regulariser from energies is the regulariser: values, gradients, extremes, and what
it refuses.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl_kernels import dispatch, functional, reference
from secure_fl_kernels.subspace import FORMS, Subspace, values, weights


def rows(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(
        n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).requires_grad_()


def rotation(d: int) -> Tensor:
    basis: Tensor = torch.linalg.qr(
        torch.randn(d, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    )[0]
    return basis


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 30),
    d=st.integers(2, 20),
    alpha=st.floats(1, 100),
    form=st.sampled_from(FORMS),
    rotated=st.booleans(),
    data=st.data(),
)
def test_values_and_gradients_are_the_references(
    n: int, d: int, alpha: float, form: str, rotated: bool, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, d - 1))
    own = Subspace(torch.arange(count), alpha, rotation(d) if rotated else None, form)  # type: ignore[arg-type]
    z1, z2 = rows(n, d, 1), rows(n, d, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(dispatch.VARIABLE, "cpu")
        _, got = functional.nt_xent_dsr_loss(z1, z2, 0.5, own)
    expected = (
        sum(reference.dsr_loss(z, own.dims, alpha, own.basis, own.form) for z in (z1, z2)) / 2
    )
    assert isinstance(expected, Tensor)
    assert abs(got.item() - expected.item()) <= 1e-11 * max(1, expected.item())
    for mine, theirs in zip(
        torch.autograd.grad(got, (z1, z2)), torch.autograd.grad(expected, (z1, z2)), strict=True
    ):
        assert float((mine - theirs).norm()) <= 1e-9 * max(float(theirs.norm()), 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_energies_close_to_one_and_zero_keep_their_digits(form: str) -> None:
    """Against 50 digits' worth of the definition: 2 − 2(1 + ae)/n in exact rationals would be the
    same as this in float64.
    """
    energy = torch.tensor([1e-14, 1e-7, 0.3, 1 - 1e-3], dtype=torch.float64)
    single = values(energy.float(), 10.0, form, 1)
    assert float(single) == pytest.approx(float(values(energy, 10.0, form, 1)), rel=2e-6)
    assert torch.isfinite(weights(energy, 10.0, form, 1)).all()


def test_rows_inside_their_own_dimensions_are_their_own_targets() -> None:
    one = torch.ones(5)
    assert float(values(one, 10.0, "code", 1)) == 0
    assert weights(one, 10.0, "code", 1).abs().max() == 0
    assert float(values(one, 10.0, "normalized", 1)) == 0


def test_nan_passes_and_alpha_one_is_nothing() -> None:
    energy = torch.tensor([0.2, torch.nan])
    assert all(torch.isnan(values(energy, 10.0, form, 1)) for form in FORMS)
    assert all(float(values(energy[:1], 1.0, form, 1)) == 0 for form in FORMS)
    assert all(weights(energy[:1], 1.0, form, 1).abs().max() == 0 for form in FORMS)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="not orthonormal"):
        Subspace(torch.tensor([0, 1]), basis=torch.ones(3, 3))
    with pytest.raises(ValueError, match="unknown form"):
        Subspace(torch.tensor([0]), form="printed")  # type: ignore[arg-type]


@pytest.mark.parametrize("provider", ["cpu", "reference"])
def test_gradients_within_groups_are_each_groups_own(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, provider)
    z1, z2 = rows(12, 5, 3), rows(12, 5, 4)
    losses = functional.group_nt_xent_loss(z1, z2, 3, 0.2)
    exact = reference.group_nt_xent_loss(z1, z2, 3, 0.2)
    torch.testing.assert_close(losses, exact)
    kept, by_first, by_second, square = functional.group_nt_xent_gradients(z1, z2, 3, 0.2)
    torch.testing.assert_close(kept, exact)
    for group in range(4):
        first, second = torch.autograd.grad(exact[group], (z1, z2), retain_graph=True)
        mine = slice(3 * group, 3 * group + 3)
        torch.testing.assert_close(by_first[mine], first[mine])
        torch.testing.assert_close(by_second[mine], second[mine])
        assert float(square[group]) == pytest.approx(
            float(first.square().sum() + second.square().sum())
        )
        first[mine] = 0
        assert first.abs().max() == 0, "a group's loss reaches its own rows only"
    with pytest.raises(ValueError, match="do not fill groups of 5"):
        functional.group_nt_xent_loss(z1, z2, 5)


@pytest.mark.parametrize("provider", ["cpu", "reference"])
@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 40),
    extra=st.integers(0, 300),
    d=st.integers(2, 20),
    temperature=st.floats(0.02, 2),
)
def test_info_nce(provider: str, n: int, extra: int, d: int, temperature: float) -> None:
    q, k = rows(n, d, 5), rows(n + extra, d, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(dispatch.VARIABLE, provider)
        got = functional.info_nce_loss(q, k, temperature)
    expected = reference.info_nce_loss(q, k, temperature)
    assert got.item() == pytest.approx(expected.item(), rel=1e-11, abs=1e-11)
    for mine, theirs in zip(
        torch.autograd.grad(got, (q, k)), torch.autograd.grad(expected, (q, k)), strict=True
    ):
        assert float((mine - theirs).norm()) <= 1e-10 * max(float(theirs.norm()), 1e-3)
