"""Per-sample gradients as torch operators: what compilation, autograd and the environment may ask
of them, and what they cost.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from secure_fl_kernels import dispatch, gradient_operators, per_sample


@pytest.fixture(params=["cpu", "reference"])
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(dispatch.VARIABLE, request.param)
    return str(request.param)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def operators() -> Iterator[tuple[Callable[..., Tensor], tuple[object, ...]]]:
    g, norms = random(4, 9), torch.ones(4)
    yield gradient_operators.square_norms, (g,)
    yield gradient_operators.clip_and_sum, (g, norms, 1.0, random(9))
    yield gradient_operators.clip_and_sum, (g.double(), norms, 1.0, None)
    yield gradient_operators.ghost_linear, (random(4, 3, 5), random(4, 3, 6).half(), True)
    yield (
        gradient_operators.ghost_conv2d,
        (random(4, 2, 5, 5), random(4, 4, 3, 3), [3, 3], [1, 1], [0, 0], [1, 1], 2, True, 2),
    )


def test_operators_keep_torchs_contract(provider: str) -> None:
    for operator, arguments in operators():
        torch.library.opcheck(operator, arguments)


def test_a_compiled_step_is_one_graph() -> None:
    def step(g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        norms = per_sample.square_norms(g) + per_sample.ghost_square_norms_linear(
            a, b, group_size=2
        ).repeat_interleave(2)
        images = per_sample.ghost_square_norms_conv2d(
            a[:, None], b[:, None, :, 2:], 3, padding=(1, 0)
        )
        return per_sample.clip_and_sum(g, norms + images, 1.0, g[0]), per_sample.clip_factors(
            norms, 1.0
        )

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for samples, width in ((4, 11), (6, 30)):
        arguments = random(samples, width), random(samples, 5, 9), random(samples, 5, 9, seed=1)
        for got, expected in zip(compiled(*arguments), step(*arguments), strict=True):
            assert torch.equal(got, expected)


def test_backward_is_refused_with_the_remedy() -> None:
    g = random(3, 4).requires_grad_()
    for result in (
        per_sample.square_norms(g),
        per_sample.ghost_square_norms_linear(g, g.detach()),
        per_sample.clip_and_sum(g, torch.ones(3), 1.0),
    ):
        with pytest.raises(RuntimeError, match=r"not differentiable: detach\(\)"):
            result.sum().backward()
    assert not per_sample.square_norms(g.detach()).requires_grad


def test_precision_of_products_is_none_of_the_callers_business() -> None:
    a, b = random(4, 40, 64), random(4, 40, 64, seed=1)
    expected = per_sample.ghost_square_norms_linear(a, b)
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(per_sample.ghost_square_norms_linear(a, b), expected)
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def test_repeats_bit_for_bit() -> None:
    for operator, arguments in operators():
        assert torch.equal(operator(*arguments), operator(*arguments))
    g = random(9, 100_003)
    assert torch.equal(
        *(per_sample.clip_and_sum(g, per_sample.square_norms(g), 1.0) for _ in range(2))
    )


def test_triton_is_neither_imported_nor_taken_for_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; import secure_fl_kernels.per_sample; print('triton' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(dispatch.ProviderError, match="only interprets"):
        per_sample.square_norms(random(2, 3))


_MEMORY = """
import torch
from pathlib import Path
from secure_fl_kernels import per_sample

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])

def peak(call):
    call(1)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    call(64)
    print((status("VmHWM") - before) / 1024)

torch.set_num_threads(1)
g, a, b = torch.ones(64, 500_000), torch.ones(64, 96, 512), torch.ones(64, 96, 512)
images, outputs = torch.ones(64, 16, 32, 32), torch.ones(64, 32, 32, 32)
peak(lambda n: per_sample.clip_and_sum(g[:n], per_sample.square_norms(g[:n]), 1.0))
peak(lambda n: per_sample.ghost_square_norms_linear(a[:n], b[:n]))
peak(lambda n: per_sample.ghost_square_norms_conv2d(images[:n], outputs[:n], 3, padding=1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_of_the_size_of_all_gradients_is_held() -> None:
    """In MiB: the clipped rows would be 122, the layers' gradients 64 and all patches 36; 16 MiB of
    patches are held at once.
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True
    )
    peaks = dict(zip(("clip", "linear", "conv2d"), map(float, done.stdout.split()), strict=True))
    assert peaks["clip"] < 24, peaks
    assert peaks["linear"] < 16, peaks
    assert peaks["conv2d"] < 32, peaks


def test_clipping_costs_a_fraction_of_the_obvious_form() -> None:
    """Eight times here at 64 rows of 10⁶; three with a busy neighbour and a fifth of the
    rows' length.
    """
    g, noise = random(64, 200_000) * 1e-3, random(200_000, seed=1)

    def obvious() -> Tensor:
        factors = (1.0 / g.pow(2).sum(1).sqrt()).clamp(max=1)
        return (g * factors[:, None]).sum(0) + noise

    def ours() -> Tensor:
        return per_sample.clip_and_sum(g, per_sample.square_norms(g), 1.0, noise)

    seconds = {obvious: 1e9, ours: 1e9}
    for _ in range(5):
        for form in seconds:
            start = time.perf_counter()
            form()
            seconds[form] = min(seconds[form], time.perf_counter() - start)
    assert seconds[obvious] > 2 * seconds[ours], seconds
