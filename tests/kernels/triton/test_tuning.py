"""Measuring tiles: every candidate computes what the shipped tile does, a planted fault is not
chosen, and what was kept is what runs. Interpreted or on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch

from secure_fl_kernels import functional, reference, tuner, tuning
from secure_fl_kernels.gpu import candidates
from secure_fl_kernels.gpu.launch import Tile
from secure_fl_kernels.gpu.tiles import device_name, tile_for, tile_of

pytestmark = [pytest.mark.triton, pytest.mark.gpu]

SIZES = {"few": 40}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(tuning.VARIABLE, str(tmp_path))
    tuning.forget()
    yield tmp_path
    tuning.forget()


def few(device: str, kernel: str) -> list[candidates.Shape]:
    found = candidates.shapes(torch.device(device), SIZES)
    return [each for each in found if each.kernel == kernel and each.width == 64]


@pytest.mark.parametrize("kernel", ["sums", "gradient", "uniformity"])
def test_every_candidate_is_timed_and_computes_the_same(kernel: str, device: str) -> None:
    for shape in few(device, kernel):
        timer = candidates.Timer([shape])
        tried = candidates.candidates(shape.shipped, shape.width)
        assert tried[0] == shape.shipped
        assert len(tried) > 5
        for choice in tried[:: 1 if device == "cuda" else 4]:
            seconds = timer(shape.name, choice)
            assert 0 < seconds < inf or device == "cuda", choice


def test_a_tile_that_computes_something_else_is_never_chosen(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = few(device, "sums")[0]
    wrong = shape.shipped._replace(stages=1)
    launch = candidates.launch
    monkeypatch.setattr(
        candidates, "launch", lambda s, tile: launch(s, tile) * (1.5 if tile == wrong else 1.0)
    )
    assert candidates.Timer([shape])(shape.name, wrong) == inf
    monkeypatch.setattr(candidates, "launch", lambda *_: 1 / 0)
    assert candidates.Timer([shape])(shape.name, shape.shipped) == inf


def test_what_was_kept_runs(device: str) -> None:
    """By planted timings: a tile of 32 columns is the fastest for every class of narrow rows."""
    where = torch.device(device)
    z = torch.zeros(256, 64, device=where)
    shipped, chosen = tile_of("sums", z, 100), Tile(64, 32, 32, 4, 1)
    assert shipped == tile_for("sums", "sm90", "ieee", 64) or device == "cuda"
    found = [each for each in candidates.shapes(where, SIZES) if each.width == 64]
    bench = tuner.Bench(
        device_name(where),
        [
            replace(each, candidates=[*each.candidates, tuple(chosen)])
            for each in candidates.classes(found)
        ],
        lambda _, choice: 0.1 if choice == tuple(chosen) else 1.0,
    )
    assert tuner.tune(bench, 5, lambda *_: None).left == []
    assert tile_of("sums", z, 100) == chosen
    assert tile_of("sums", z, 9000) == shipped
    narrow = torch.randn(70, 40, generator=torch.Generator().manual_seed(0))
    a, b = narrow.to(where), narrow.flip(0).to(where)
    torch.testing.assert_close(
        functional.nt_xent_loss(a, b, 0.2).cpu(),
        reference.nt_xent_loss(narrow, narrow.flip(0), 0.2),
    )


def test_shapes_are_classes_of_their_own(device: str) -> None:
    found = candidates.shapes(torch.device(device))
    assert len({shape.name for shape in found}) == len(found)
    assert {shape.name.split("/")[2] for shape in found} == {"64", "128", "wide"}
