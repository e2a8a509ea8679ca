"""What `secure_fl_kernels` exports, and what it refuses in words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import inf, nan

import pytest
import torch
from torch import Tensor

import secure_fl_kernels as kernels
from secure_fl_kernels import dispatch

Z1 = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
Z2 = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
OWN = kernels.Subspace(torch.tensor([0, 2]))
WITH_TEMPERATURE: dict[str, Callable[[float], object]] = {
    "nt_xent": lambda t: kernels.nt_xent_loss(Z1, Z2, t),
    "nt_xent_dsr": lambda t: kernels.nt_xent_dsr_loss(Z1, Z2, t, OWN),
    "info_nce": lambda t: kernels.info_nce_loss(Z1, Z2, t),
    "group": lambda t: kernels.group_nt_xent_loss(Z1, Z2, 2, t),
    "group gradients": lambda t: kernels.group_nt_xent_gradients(Z1, Z2, 2, t),
    "distillation": lambda t: kernels.distillation_loss(Z1, Z2, t),
}
WITH_T: dict[str, Callable[[float], object]] = {
    "uniformity": lambda t: kernels.uniformity_loss(Z1, t),
    "align uniformity": lambda t: kernels.align_uniformity_loss(Z1, Z2, t),
    "align uniformity dsr": lambda t: kernels.align_uniformity_dsr_loss(Z1, Z2, t, OWN),
}
IMPOSSIBLE = (0, -0.1, inf, -inf, nan)


def test_every_name_is_exported_and_nothing_is_imported_before_it_is_used() -> None:
    for name in kernels.__all__:
        assert callable(getattr(kernels, name))
        assert name in dir(kernels)
        assert name in (kernels.__doc__ or "")
        assert len((getattr(kernels, name).__doc__ or "").split()) > 5, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kernels.nothing
    code = "import sys, secure_fl_kernels; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("provider", ["auto", "cpu", "reference"])
@pytest.mark.parametrize("value", IMPOSSIBLE)
def test_impossible_settings_are_refused_in_words(
    value: float, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, provider)
    for setting, losses in (("temperature", WITH_TEMPERATURE), ("t", WITH_T)):
        for call in losses.values():
            with pytest.raises(ValueError, match=f"^{setting} must be positive and finite, not "):
                call(value)
            call(0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: kernels.Subspace(torch.tensor([0]), alpha=0.5), "alpha must be at least 1"),
        (lambda: kernels.Subspace(torch.tensor([0]), alpha=nan), "alpha must be at least 1"),
        (lambda: kernels.Subspace(torch.tensor([1, 1])), "differ from each other"),
        (lambda: kernels.Subspace(torch.tensor([-1])), "lie between 0"),
        (lambda: kernels.Subspace(torch.tensor([4]), basis=torch.eye(4)), "between 0 and 3"),
        (lambda: kernels.Subspace(torch.tensor([0.0])), "int64"),
        (lambda: kernels.dsr_loss(Z1, torch.tensor([4])), "between 0 and 3"),
        (lambda: kernels.dsr_loss(Z1, torch.tensor([0]), 0.0), "alpha must be at least 1"),
        (
            lambda: kernels.nt_xent_dsr_loss(Z1, Z2, 0.5, kernels.Subspace(torch.tensor([4]))),
            "4 wide, and the own dimensions need 5|lie between 0 and 3",
        ),
        (lambda: kernels.uniformity_loss(Z1[:1]), "two rows at least"),
        (lambda: kernels.info_nce_loss(Z1, Z2[:3]), "at least as many"),
        (lambda: kernels.nt_xent_loss(Z1, Z2[:3]), "shapes differ"),
        (lambda: kernels.group_nt_xent_loss(Z1, Z2, 4), "do not fill groups of 4"),
        (lambda: kernels.group_nt_xent_loss(Z1, Z2, 0), "do not fill groups of 0"),
    ],
)
@pytest.mark.parametrize("provider", ["cpu", "reference"])
def test_what_does_not_fit_is_refused_in_words(
    make: Callable[[], object], words: str, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, provider)
    with pytest.raises(ValueError, match=words):
        make()


def test_what_is_no_tensor_of_numbers_is_a_type_error() -> None:
    for z in (Z1.long(), Z1 > 0):
        with pytest.raises(TypeError, match="floating-point rows are needed"):
            kernels.nt_xent_loss(z, z)
    with pytest.raises(TypeError, match="tensors are needed, not list, list"):
        kernels.nt_xent_loss([1.0], [1.0])  # type: ignore[arg-type]


def test_arguments_may_be_named_in_any_order() -> None:
    named: Tensor = kernels.nt_xent_loss(temperature=0.5, z2=Z2, z1=Z1)
    assert torch.equal(named, kernels.nt_xent_loss(Z1, Z2, 0.5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("provider", ["cpu", "reference"])
def test_results_have_the_promised_dtype(
    dtype: torch.dtype, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, provider)
    z = Z1.to(dtype).requires_grad_()
    for loss in (kernels.nt_xent_loss(z, Z2.to(dtype)), kernels.uniformity_loss(z)):
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.autograd.grad(loss, z)[0].dtype == dtype
