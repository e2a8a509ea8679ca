"""Times, errors, memory and the peers, at sizes that take no time."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import harness
from bench.kernels import peers, providers, registry, run
from bench.kernels.agenda import Cell, walk
from bench.kernels.case import MIB, NAIVE, REDUCED, TILES, Case, Kernel, Provider
from bench.kernels.measure import Program, Timing, interleave, relative_error
from bench.kernels.memory import MemoryUnknownError, grown_mib, peak_mib
from bench.kernels.rivals import inf_cl
from bench.kernels.run import CSV, History, Options

QUICK = Options(rounds=3, budget=1, memory=False)
TINY = {"ghost": Case(4, 16), "clip": Case(4, 500), "step": Case(16, 16), "group": Case(256, 8)}


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiling takes longer than these tests may; that it is left out with a reason is one
    of them.
    """
    monkeypatch.setenv("CXX", "no-such-compiler")
    caches = (peers.compiler_missing, peers._lightly_class, peers._metric_learning)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def simple(*made: Provider) -> Kernel:
    """A kernel whose value is the sum of its input."""
    return Kernel(
        "simple",
        "a sum",
        lambda case: (case.random(case.rows, case.dimension),),
        made,
        exact=lambda _: torch.sum,
    )


def provider(name: str = NAIVE, function: object = torch.sum, **settings: object) -> Provider:
    return Provider(name, lambda _: function, lambda _: 0.0, **settings)


@pytest.mark.parametrize("name", registry.NAMES)
def test_every_kernel_is_measured(name: str, tmp_path: Path) -> None:
    kernel = registry.kernel(name)
    said: list[str] = []
    walk([Cell(kernel, TINY.get(name, Case(64, 16)))], QUICK, tmp_path, said.append)
    with (tmp_path / CSV).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["provider"], row["setting"]) for row in rows] == [p.key for p in kernel.providers]
    assert said
    for row in rows:
        assert bool(row["skipped"]) != bool(row["y50"])
        assert row["machine"]
        assert row["commit"]
        assert "torch" in row["versions"]
        if row["y50"]:
            assert 0 < float(row["y20"]) <= float(row["y50"]) <= float(row["y80"])
            assert int(row["samples"]) == 3
            # on processors with AMX reduced precision rounds both factors of a product to bfloat16,
            # each by up to 2⁻⁹
            most = 2**-8 if row["provider"] == REDUCED else 1e-4
            assert kernel.exact is None or float(row["value_error"]) < most
            assert (kernel.exact is None or not kernel.backward) == (not row["gradient_error"])
            assert float(row["gradient_error"] or 0) < most
            assert float(row["times_naive"]) > 0
    assert {row["provider"] for row in rows if row["skipped"]} <= {
        "tiles, reduced precision", "triton", "Inf-CL", "Liger cross-entropy",
        "torch.compile of naive", "lightly NTXentLoss", "pytorch-metric-learning SupConLoss",
        "pytorch-metric-learning NTXentLoss",
    }  # fmt: skip


def test_errors_are_against_float64() -> None:
    wrong = provider("wrong", lambda x: x.sum() * 1.01)
    found = run.measure(simple(provider(), wrong), Case(50, 4), QUICK, History())
    value, gradient = found.exact[""]
    assert value.dtype == torch.float64
    assert relative_error(found.timings["wrong", ""].value, value) == pytest.approx(0.01, rel=1e-3)
    assert relative_error(found.timings["wrong", ""].gradient, gradient) == pytest.approx(
        0.01, rel=1e-3
    )
    assert relative_error(found.timings[NAIVE, ""].gradient, gradient) == 0
    assert relative_error(None, value) is None


def test_large_sizes_are_judged_by_the_tiles_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_MOST_ROWS_EXACT", 10)
    kernel, case = registry.kernel("ntxent"), Case(600, 16)
    found = run.measure(kernel, case, QUICK, History(), (kernel.provider(NAIVE),))
    assert found.oracle == "tiles in float64"
    assert found.exact[""][0].dtype == torch.float64
    assert relative_error(found.timings[NAIVE, ""].gradient, found.exact[""][1]) < 1e-5


def test_quantiles() -> None:
    assert Timing([5.0, 1.0, 3.0, 2.0, 4.0, 6.0]).quantiles == pytest.approx((2.0, 3.5, 5.0))


def test_providers_take_turns_and_every_other_round_is_reversed() -> None:
    calls: list[str] = []

    def noted(name: str) -> Program:
        def function(x: torch.Tensor) -> torch.Tensor:
            calls.append(name)
            return x.sum()

        return Program(provider(name, function), function, 1.0)

    floors = {"floor": lambda: calls.append("floor") or 0.5}
    timings, samples = interleave([noted("a"), noted("b")], floors, simple(), Case(4, 4), 3, 100)
    assert calls == ["a", "b", "floor", "b", "a", "floor", "a", "b", "floor"]
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]
    assert samples == {"floor": [0.5, 0.5, 0.5]}


def test_short_calls_are_repeated_within_a_sample_and_long_ones_are_sampled_less() -> None:
    calls = [0]

    def function(x: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return x.sum()

    interleave(
        [Program(provider("short", function), function, 0.002)], {}, simple(), Case(4, 4), 3, 100
    )
    assert calls[0] == 30
    timings, _ = interleave(
        [Program(provider("long", function), function, 10.0)], {}, simple(), Case(4, 4), 9, 50
    )
    assert len(timings["long", ""].seconds) == 5


def test_what_a_provider_needs_is_set_while_it_runs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str | None, str, int]] = []
    monkeypatch.delenv("SECURE_FL_KERNELS", raising=False)

    def state() -> tuple[str | None, str, int]:
        return (
            run.os.environ.get("SECURE_FL_KERNELS"),
            torch.get_float32_matmul_precision(),
            torch.get_num_threads(),
        )

    before = state()
    kernel = simple(
        provider("a", lambda x: seen.append(state()) or x.sum(), request="cpu", precision="medium")
    )
    run.measure(kernel, Case(4, 4, threads=2), QUICK, History())
    assert set(seen) == {("cpu", "medium", 2)}
    assert state() == before


def test_what_does_not_fit_or_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "free_bytes", lambda _: 100.0 * MIB)
    kernel = registry.kernel("ntxent")
    chosen = (kernel.provider(TILES), kernel.provider(NAIVE))
    found = run.measure(kernel, Case(4096, 16), QUICK, History(), chosen)
    assert list(found.timings) == [(TILES, "")]
    assert "would need 0.2 GiB" in found.skipped[NAIVE, ""]
    history = History()
    found = run.measure(kernel, Case(2048, 16), replace(QUICK, limit=1e-6), history, chosen)
    assert not found.timings
    assert all("a call would take about" in reason for reason in found.skipped.values())


def test_predictions_follow_the_order_of_growth() -> None:
    kernel, case = simple(provider()), Case(8192, 16)
    history = History()
    history.learn(kernel, provider(), replace(case, rows=2048), 0.5)
    assert history.predict(kernel, provider(), case, kernel.inputs) == pytest.approx(8.0)
    assert history.predict(
        kernel, replace(provider(), order=3), case, kernel.inputs
    ) == pytest.approx(32.0)


def test_others_may_fail_and_ours_may_not() -> None:
    def broken(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of luck")

    found = run.measure(simple(provider("theirs", broken)), Case(4, 4), QUICK, History())
    assert found.skipped["theirs", ""] == "failed: RuntimeError: out of luck"
    with pytest.raises(RuntimeError, match="out of luck"):
        run.measure(simple(provider("ours", broken, request="cpu")), Case(4, 4), QUICK, History())


def test_missing_peers_are_left_out_with_the_way_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in [
        name for name in sys.modules if name.split(".")[0] in ("lightly", "pytorch_metric_learning")
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "packages" not in path])
    sys.path_importer_cache.clear()
    for missing in (peers.lightly_missing, peers.metric_learning_missing):
        assert peers.INSTALL in missing()
    assert (
        peers.compiler_missing()
        == "torch.compile needs a C++ compiler, and there is no no-such-compiler"
    )
    assert "GPU" in inf_cl.missing(Case(4, 4)) or torch.cuda.is_available()


def test_lightly_is_loaded_without_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package laid out as lightly is, whose own package files import what is not there."""
    for folder in ("loss", "models/modules", "utils"):
        (tmp_path / "lightly" / folder).mkdir(parents=True)
    for folder in (".", "loss", "models", "models/modules", "utils"):
        (tmp_path / "lightly" / folder / "__init__.py").write_text(
            "import torchvision_of_another_torch\n"
        )
    (tmp_path / "lightly" / "models" / "utils.py").write_text(
        "from torchvision.ops import StochasticDepth\n"
    )
    (tmp_path / "lightly" / "loss" / "ntx_ent_loss.py").write_text(
        "from lightly.models import utils\nclass NTXentLoss: used = utils.StochasticDepth\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.split(".")[0] == "lightly"]:
        monkeypatch.delitem(sys.modules, module)
    loss = peers._lightly_class()
    assert not [name for name in sys.modules if name.split(".")[0] in ("lightly", "torchvision")]
    with pytest.raises(ImportError, match="not imported in this benchmark"):
        loss.used()


@pytest.mark.parametrize(
    "name",
    [
        "lightly NTXentLoss",
        "pytorch-metric-learning SupConLoss",
        "pytorch-metric-learning NTXentLoss",
    ],
)
def test_peers_compute_the_same_loss(name: str) -> None:
    kernel, case = registry.kernel("ntxent"), Case(32, 8)
    peer = kernel.provider(name)
    if peer.missing(case):
        pytest.skip(peer.missing(case))
    inputs = kernel.inputs(case)
    assert float(peer.make(case)(*inputs)) == pytest.approx(
        float(kernel.exact("")(*inputs)), rel=1e-5
    )


def test_reduced_precision_is_asked_for_where_there_is_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    reduced = registry.kernel("ntxent").provider("tiles, reduced precision")
    assert reduced.precision == "medium"
    monkeypatch.setattr(providers, "has_amx", lambda: True)
    assert reduced.missing(Case(64, 8)) == ""
    assert "float64" in reduced.missing(Case(64, 8, dtype="float64"))
    monkeypatch.setattr(providers, "has_amx", lambda: False)
    assert reduced.missing(Case(64, 8)) == "the processor has no amx_bf16"


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system keeps no such record"
)
@pytest.mark.parametrize("blocks", [1, 3])
def test_memory_in_use_is_what_is_counted(blocks: int) -> None:
    """Blocks of 64 MiB held at once, and as many again after they are freed."""

    def function(x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            held = [torch.ones(16 * MIB) for _ in range(blocks)]
            del held
        return x.sum()

    assert grown_mib(simple(), provider("holds", function), Case(600, 4)) == pytest.approx(
        64 * blocks, abs=6
    )


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    kernel, case = registry.kernel("ntxent"), Case(2048, 32)
    tiles, naive = (peak_mib(kernel, kernel.provider(name), case) for name in (TILES, NAIVE))
    assert 2 * 16 < naive < 8 * 16
    assert tiles < naive / 4
    assert 0.5 < kernel.provider(NAIVE).bytes(case) / MIB / naive < 2
    assert kernel.provider(TILES).bytes(case) / MIB > tiles / 2
    with pytest.raises(MemoryUnknownError, match="KeyError"):
        peak_mib(kernel, provider("nobody"), case)


def test_rows_of_other_columns_are_refused(tmp_path: Path) -> None:
    harness.append_row("a.csv", {"x": 1}, {"machine": "m"}, tmp_path)
    harness.append_row("a.csv", {"x": 2}, {"machine": "m"}, tmp_path)
    assert [row["x"] for row in harness.read_rows("a.csv", tmp_path)] == ["1", "2"]
    with pytest.raises(ValueError, match="columns"):
        harness.append_row("a.csv", {"y": 3}, {"machine": "m"}, tmp_path)
    assert harness.read_rows("none.csv", tmp_path) == []


def test_provenance_names_what_is_installed() -> None:
    where = harness.provenance(["pytest", "no-such-package"])
    assert f"pytest {pytest.__version__}" in where["versions"]
    assert "no-such-package" not in where["versions"]
    assert set(where) == {"date", "machine", "versions", "commit"}


def test_pool_starts_still_finds_its_rows() -> None:
    from bench import pool_starts

    assert pool_starts.table().count("\n") > 50


def test_pool_keeping_makes_runs_of_its_scenarios_and_finds_its_rows() -> None:
    from bench import pool_keeping
    from secure_fl import FederationConfig

    for name, scenario in pool_keeping.ALL.items():
        configs = [
            FederationConfig(**pool_keeping.tables_of(scenario, 0, margin))
            for margin in pool_keeping.MARGINS
        ]
        assert [config.pools.keep_margin for config in configs] == [
            0,
            FederationConfig().pools.keep_margin,
        ], name
    data = pool_keeping.Uneven("inverted", ((9,) * 2, (5,)), labels=0.5).data(0)
    assert data.client is not None
    assert data.client.bincount().tolist() == [9, 9, 5]
    assert 0 < int((data.y >= 0).sum()) < 23
    assert pool_keeping.table().count("\n") > 20
