"""Measured tiles: what is kept, read, refused by name, and left when the time is over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch

from secure_fl_kernels import functional, reference, tuner, tuning
from secure_fl_kernels.cpu import candidates, tiles
from secure_fl_kernels.cpu.tiles import Cut
from secure_fl_kernels.processor import Processor, processor

SHIPPED, FASTER, SLOWER, BROKEN = (64, 1), (128, 1), (32, 1), (256, 1)
SECONDS = {SHIPPED: 1.0, FASTER: 0.5, SLOWER: 2.0, BROKEN: inf}
ALL = [tuning.Class(name, list(SECONDS)) for name in ("a", "b", "c")]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(tuning.VARIABLE, str(tmp_path))
    tuning.forget()
    yield tmp_path
    tuning.forget()


def planted(seconds: dict[tuple[int, ...], float] = SECONDS) -> tuner.Bench:
    return tuner.Bench("Some GPU 80GB", ALL, lambda _, choice: seconds[choice])


def clock(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def tuned(bench: tuner.Bench, step: float = 0.0, **options: object) -> tuner.Searched:
    ticks = clock(step)
    return tuner.tune(bench, 1.0, lambda *_: None, clock=lambda: next(ticks), **options)  # type: ignore[arg-type]


def test_the_fastest_is_kept_and_read(place: Path) -> None:
    found = tuned(planted())
    assert found.path == place / "some-gpu-80gb.json"
    assert tuning.choices("Some GPU 80GB") == dict.fromkeys("abc", FASTER)
    assert tuning.choices("Another GPU") == {}
    assert "3 classes" in tuning.explain("Some GPU 80GB")
    assert "kernels tune" in tuning.explain("Another GPU")


def test_what_gains_less_than_chance_stays_as_shipped() -> None:
    tuned(planted({**SECONDS, FASTER: 0.98}))
    assert tuning.choices("Some GPU 80GB") == dict.fromkeys("abc", SHIPPED)


def test_it_ends_in_time_keeps_what_it_has_and_goes_on(place: Path) -> None:
    first = tuned(planted(), step=8)
    assert first.left == ["b", "c"]
    assert set(tuning.choices("Some GPU 80GB")) == {"a"}
    second = tuned(planted({**SECONDS, SLOWER: 0.1}))
    assert (second.kept, second.left) == (1, [])
    assert tuning.choices("Some GPU 80GB") == {"a": FASTER, "b": SLOWER, "c": SLOWER}
    tuned(planted(), again=True)
    assert tuning.choices("Some GPU 80GB") == dict.fromkeys("abc", FASTER)


def test_measuring_again_loses_nothing_when_it_is_stopped() -> None:
    tuned(planted())
    cut_short = tuned(planted({**SECONDS, SLOWER: 0.1}), step=8, again=True)
    assert (cut_short.kept, cut_short.left) == (0, ["b", "c"])
    assert tuning.choices("Some GPU 80GB") == {"a": SLOWER, "b": FASTER, "c": FASTER}


def test_stopping_it_loses_the_class_at_hand_only() -> None:
    def interrupted(name: str, choice: tuple[int, ...]) -> float:
        if name == "b":
            raise KeyboardInterrupt
        return SECONDS[choice]

    with pytest.raises(KeyboardInterrupt):
        tuned(replace(planted(), seconds=interrupted))
    assert tuning.choices("Some GPU 80GB") == {"a": FASTER}


def stale(path: Path, kind: str) -> str:
    """Spoil the file; what the refusal must name."""
    stored = json.loads(path.read_text())
    if kind == "damaged":
        stored["tiles"]["choices"]["a"] = [9, 9]
        path.write_text(json.dumps(stored))
        return "is damaged"
    if kind == "cut off":
        path.write_text(path.read_text()[:-20])
        return "is damaged"
    found = tuning.Tuned(**stored["tiles"])
    tuning.write(path, replace(found, **{kind: "another"}))
    return f"is of {kind} 'another', and here is "


@pytest.mark.parametrize("kind", ["device", "kernels", "software", "damaged", "cut off"])
def test_a_stale_file_is_refused_by_name_and_the_shipped_tiles_run(kind: str) -> None:
    path = tuned(planted()).path
    words = stale(path, kind)
    with pytest.raises(tuning.StaleTilesError, match=f"{path} {words}.*kernels tune"):
        tuning.read(path, "Some GPU 80GB")
    tuning.forget()
    with pytest.warns(RuntimeWarning, match=f"{words}.*the shipped tiles run"):
        assert tuning.choices("Some GPU 80GB") == {}
    assert tuning.choices("Some GPU 80GB") == {}, "one warning is enough"
    assert f"REFUSED: {path} {words}" in tuning.explain("Some GPU 80GB")
    assert tuned(planted()).kept == 0
    assert tuning.choices("Some GPU 80GB") == dict.fromkeys("abc", FASTER)


def test_the_variable_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned(planted())
    monkeypatch.setenv(tuning.VARIABLE, tuning.SHIPPED)
    assert tuning.choices("Some GPU 80GB") == {}
    assert tuning.explain("Some GPU 80GB").startswith("shipped, since")
    with pytest.raises(ValueError, match="no measured tile would be read"):
        tuned(planted())


def test_the_processor_runs_what_was_measured_on_it() -> None:
    """Every cut that might be chosen computes the same loss and gradient."""
    z1, z2 = (torch.randn(600, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    expected = torch.autograd.grad(reference.nt_xent_loss(z1, z2, 0.2), (z1, z2))
    for choice in ((128, 2), (192, 0), (320, 2)):
        bench = tuner.Bench(
            str(processor()),
            [
                tuning.Class(f"tiles/{name}", [tiles.shipped(name), choice])
                for name in ("few", "many")
            ],
            lambda _, tried, choice=choice: 0.5 if tried == choice else 1.0,
        )
        tuned(bench, again=True)
        assert tiles.cut_of(1200) == tiles.cut_of(10) == Cut(*choice)
        got = torch.autograd.grad(functional.nt_xent_loss(z1, z2, 0.2), (z1, z2))
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(
            functional.info_nce_loss(z1, z2, 0.2), reference.info_nce_loss(z1, z2, 0.2)
        )
        torch.testing.assert_close(functional.uniformity_loss(z1), reference.uniformity_loss(z1))


def test_candidates_follow_the_caches() -> None:
    def edges(l2: int) -> set[int]:
        here = Processor("some", 2, "AVX2", 32, l2, 0)
        return {cut.edge for cut in candidates.cuts(here)}

    assert max(edges(512)) < max(edges(2048))
    assert min(edges(512)) < min(edges(2048))
    assert edges(0) == edges(1024)
    for each in candidates.classes():
        shipped = tiles.shipped(each.name.partition("/")[2])
        assert each.candidates[0] == shipped
        assert len({cut[1] for cut in each.candidates}) == 2


@pytest.mark.parametrize(
    ("name", "instructions", "base"),
    [
        ("Intel(R) Xeon(R)", "AVX512 with AMX", 0),
        ("Intel(R) Xeon(R)", "AVX2", 2),
        ("AMD EPYC", "AVX512", 2),
        ("AMD EPYC", "AVX2", 2),
    ],
)
def test_the_shipped_exponential_follows_the_processor(
    name: str, instructions: str, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "processor", lambda: Processor(name, 2, instructions, 32, 1024, 0))
    assert {tiles.shipped(each).base for each in ("few", "many")} == {base}


def test_timing_a_cut_takes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_ROWS", {"few": 64})
    assert candidates.seconds("tiles/few", (32, 2)) > 0


def test_the_processor_is_named_with_its_caches() -> None:
    here = Processor("Some CPU", 2, "AVX2", 32, 512, 0)
    assert str(here) == "Some CPU, 2 processors, AVX2, L1d 32 KiB, L2 512 KiB"
    assert processor().count >= 1
    assert processor().instructions
