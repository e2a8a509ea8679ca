"""Who computes the losses: what is chosen, what is refused, and the shapes on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode

from secure_fl_kernels import dispatch, functional, operators
from secure_fl_kernels.subspace import Subspace


def test_dispatch_says_what_it_does_and_refuses_what_it_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z = torch.randn(4, 2)
    answers = {}
    for request in ("auto", "cpu", "reference"):
        monkeypatch.setenv(dispatch.VARIABLE, request)
        answers[request] = [
            dispatch.choose(z, count, tiles)
            for count, tiles in ((2, True), (dispatch.FEWEST_ROWS, True), (9999, False))
        ]
        assert dispatch.explain()
    assert answers == {
        "auto": ["reference", "cpu", "reference"],
        "cpu": ["cpu", "cpu", "reference"],
        "reference": ["reference"] * 3,
    }
    monkeypatch.setenv(dispatch.VARIABLE, "cpu")
    with pytest.raises(ValueError, match="the tensors are on meta"):
        dispatch.choose(z.to("meta"), 9)
    monkeypatch.setenv(dispatch.VARIABLE, "gpu")
    with pytest.raises(ValueError, match="'gpu' is not one of auto, triton, cpu, reference"):
        functional.uniformity_loss(z)


def test_triton_on_the_processor_is_refused_unless_interpreted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z = torch.randn(4, 2)
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="Triton only interprets"):
        functional.uniformity_loss(z)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.choose(z, 4) == "triton"
    assert dispatch.choose(z.double(), 4) == "cpu"
    assert "interpreted" in dispatch.explain()


def test_the_route_to_a_gpu_has_the_right_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors on a GPU that is not there: what each operator promises of its results, forward
    and backward.

    The gradients' operators are called by hand: autograd's engine asks the GPU's driver for
    a stream.
    """
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    own = Subspace(torch.tensor([0, 2]), form="normalized")
    with FakeTensorMode(allow_non_fake_inputs=True):
        for dtype in (torch.float32, torch.bfloat16):
            z1, z2 = (torch.empty(70, 33, dtype=dtype, device="cuda") for _ in range(2))
            assert dispatch.choose(z1, 140) == "triton"
            assert dispatch.choose(z1.double(), 140) == "reference"
            terms = [
                *functional.nt_xent_dsr_loss(z1, z2, 0.2, own),
                *functional.align_uniformity_dsr_loss(z1, z2, 2.0, own),
                functional.info_nce_loss(z1.narrow(0, 0, 30), z2),
                functional.spectral_moment(z1, z2),
                functional.distillation_loss(z1, z2),
                functional.group_nt_xent_loss(z1, z2, 7).sum(),
            ]
            assert {(term.shape, term.dtype, term.device.type) for term in terms} == {
                ((), torch.float32, "cuda")
            }
            x, settings = torch.cat([z1, z2]), (0.2, 10.0, "code", "triton")
            columns = own.columns(x)
            loss, dsr, *kept = operators.ntxent(x, columns, *settings)
            pulled, align, also, *spread = operators.uniformity(x, columns, 2, *settings)
            for gradient in (
                operators.ntxent_gradient(loss, dsr, *kept, columns, 33, dtype, *settings),
                operators.uniformity_gradient(
                    pulled, align, also, x, *spread, columns, 2, *settings
                ),
            ):
                assert (gradient.shape, gradient.dtype, gradient.device.type) == (
                    x.shape,
                    dtype,
                    "cuda",
                )
