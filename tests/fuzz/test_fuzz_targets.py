"""The fuzz targets run here on mutated seeds; with atheris installed they also run coverage-guided
for a few seconds.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzz.targets import make_target

HERE = Path(__file__).parent


def test_mutated_seeds_bring_out_typed_errors_only() -> None:
    target, seeds = make_target()
    rng = np.random.default_rng(0)
    for seed in seeds:
        target(seed)
        for _ in range(150):
            data = bytearray(seed)
            for _ in range(int(rng.integers(1, 8))):
                data[int(rng.integers(1, len(data)))] = int(rng.integers(256))
            target(
                bytes(data[: len(data) - int(rng.integers(0, 3)) * int(rng.integers(len(data)))])
            )


def test_a_planted_crash_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzz.targets as module

    monkeypatch.setattr(module, "read_body", lambda *a: 1 // 0)
    target, _ = make_target()
    with pytest.raises(ZeroDivisionError):
        target(b"\1x")


@pytest.mark.slow
def test_coverage_guided(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip(
            "atheris is not installed: pip install atheris, then python tests/fuzz/fuzz_envelope.py"
        )
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz_envelope.py"), "-max_total_time=20"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
