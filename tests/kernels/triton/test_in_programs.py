"""The losses inside larger programs: autocast, torch.compile, CUDA graphs and streams.

What only a GPU can run is marked `gpu` alone. Elsewhere it is checked that nothing a graph cannot
capture is asked for: no launcher reads a number back, or moves a tensor between devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from secure_fl_kernels import functional
from secure_fl_kernels.gpu import distil, groups, infonce, moment, ntxent, uniform
from secure_fl_kernels.subspace import Subspace

Loss = Callable[[Tensor, Tensor], Tensor]
TEMPERATURE = 0.2


def losses(device: str) -> dict[str, Loss]:
    own = Subspace(torch.tensor([1, 3], device=device))
    return {
        "nt_xent_dsr": lambda a, b: torch.stack(
            functional.nt_xent_dsr_loss(a, b, TEMPERATURE, own)
        ).sum(),
        "align_uniformity": lambda a, b: torch.stack(
            functional.align_uniformity_loss(a, b, 2.0)
        ).sum(),
        "info_nce": lambda a, b: functional.info_nce_loss(a, b, TEMPERATURE),
        "group": lambda a, b: functional.group_nt_xent_loss(a, b, 4, TEMPERATURE).sum(),
        "moment": functional.spectral_moment,
        "distillation": functional.distillation_loss,
    }


NAMES = tuple(losses("cpu"))


def views(device: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(40, 20, generator=generator).to(device, dtype).requires_grad_()
        for _ in range(2)
    ]


def step(loss: Loss, z: Sequence[Tensor]) -> tuple[Tensor, ...]:
    value = loss(*z)
    return (value.detach(), *torch.autograd.grad(value, z))


class ReadsBackError(AssertionError):
    """An operation that a CUDA graph cannot capture."""


class _Captured(TorchDispatchMode):
    """Refuses what makes the processor wait for the GPU, or depends on values for its shape."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique", "item")

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if any(func.__name__.startswith(name) for name in self.WAITING):
            raise ReadsBackError(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def captured() -> Iterator[None]:
    with _Captured():
        yield


def launched(name: str, a: Tensor, b: Tensor) -> None:
    """Forward and backward of the launchers themselves: an operator hides what is inside it."""
    x, one = torch.cat([a, b]), a.new_ones(())
    if name == "nt_xent":
        _, z, inverse, statistics, own, _ = ntxent.forward(x, TEMPERATURE, None)
        ntxent.backward(one, None, z, inverse, statistics, own, None, TEMPERATURE, 20, x.dtype)
    elif name == "uniformity":
        _, _, inverse, pull, rates, own, _ = uniform.forward(x, 2, 2.0, None)
        uniform.backward(one, one, None, x, inverse, pull, rates, own, None, 2.0)
    elif name == "info_nce":
        _, *kept = infonce.forward(a, b, TEMPERATURE)
        infonce.backward(one, *kept, TEMPERATURE, 20, x.dtype)
    elif name == "moment":
        _, inverse, second = moment.forward(x)
        moment.backward(one, x, inverse, second)
    elif name == "group":
        groups.forward(a, b, 4, TEMPERATURE)
    else:
        distil.forward(a, b, 0.5)


LAUNCHED = ("nt_xent", "uniformity", "info_nce", "moment", "group", "distillation")


@pytest.mark.triton
@pytest.mark.parametrize("name", LAUNCHED)
def test_no_launcher_waits_for_the_device(
    name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secure_fl_kernels.gpu import contrast, rows

    class Nothing:
        """In a kernel's place: the interpreter itself reads its tensors."""

        def __getitem__(self, _: object) -> Callable[..., None]:
            return lambda *_, **__: None

    for module in (contrast, rows, uniform, moment, groups, distil):
        for kernel in [name for name in vars(module) if name.endswith("_kernel")]:
            monkeypatch.setattr(module, kernel, Nothing())
    a, b = (z.detach() for z in views(device))
    with captured():
        launched(name, a, b)


@pytest.mark.triton
def test_reading_back_is_found() -> None:
    with pytest.raises(ReadsBackError, match="_local_scalar_dense"), captured():
        float(torch.ones(3).sum())


@pytest.mark.triton
@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_no_bit(name: str, device: str) -> None:
    loss, z = losses(device)[name], views(device)
    plain = step(loss, z)
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = step(loss, z)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(plain, cast, strict=True))


@pytest.mark.triton
@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in NAMES if name != "group"])
def test_a_compiled_step_is_one_graph(name: str, device: str) -> None:
    loss = losses(device)[name]
    compiled = torch.compile(
        lambda a, b: loss(a.relu(), b.relu()), fullgraph=True, backend="aot_eager"
    )
    z = views(device)
    got, expected = step(compiled, z), step(lambda a, b: loss(a.relu(), b.relu()), z)
    torch.testing.assert_close(got, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_of_forward_and_backward_is_captured_and_replayed(
    name: str, dtype: torch.dtype, device: str
) -> None:
    loss, z = losses(device)[name], views(device, dtype=dtype)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, and lets the allocator settle
            step(loss, z)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = step(loss, z)
    for seed in (1, 2):
        fresh = views(device, seed, dtype)
        with torch.no_grad():
            for mine, theirs in zip(z, fresh, strict=True):
                mine.copy_(theirs)
        graph.replay()
        torch.cuda.synchronize()
        for mine, theirs in zip(held, step(loss, fresh), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_streams_do_not_meet(name: str, device: str) -> None:
    loss = losses(device)[name]
    given = [views(device, seed) for seed in range(4)]
    expected = [step(loss, z) for z in given]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in given]
    found: list[tuple[Tensor, ...]] = []
    for _ in range(20):
        found = []
        for stream, z in zip(streams, given, strict=True):
            with torch.cuda.stream(stream):
                found.append(step(loss, z))
    torch.cuda.synchronize()
    for mine, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.gpu
@pytest.mark.slow
def test_more_elements_than_two_to_the_31(device: str) -> None:
    """Groups are independent: the last ones of many give what they give alone."""
    count, width = 2**24 + 64, 128
    z1, z2 = (torch.randn(count, width, device=device, dtype=torch.float16) for _ in range(2))
    got = functional.group_nt_xent_gradients(z1, z2, 8, TEMPERATURE)
    alone = functional.group_nt_xent_gradients(z1[-64:], z2[-64:], 8, TEMPERATURE)
    for mine, theirs in zip(got, alone, strict=True):
        assert torch.equal(mine[-len(theirs) :], theirs)
