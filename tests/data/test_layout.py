"""Which axis holds the channels: found, or asked for, never guessed; the same rule from
every side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from secure_fl import Dataset
from secure_fl.config import SourceConfig
from secure_fl.data.sources.npz import npz
from secure_fl.errors import DataError

CASES: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = [
    ((1, 8, 8), (1, 8, 8)),
    ((8, 8, 1), (1, 8, 8)),
    ((3, 32, 32), (3, 32, 32)),
    ((32, 32, 3), (3, 32, 32)),
    ((16, 16, 4), (4, 16, 16)),
    ((4, 16, 16), (4, 16, 16)),
    ((32, 32, 13), (13, 32, 32)),
    ((13, 32, 32), (13, 32, 32)),
    ((20, 30, 3), (3, 20, 30)),
    ((3, 20, 30), (3, 20, 30)),
    ((40, 60, 13), (13, 40, 60)),
    ((1, 2, 2), (1, 2, 2)),
    ((3, 3, 3), None),
    ((16, 16, 16), None),
    ((3, 20, 3), None),
    ((3, 20, 4), None),
    ((3, 3, 100), None),
    ((100, 3, 3), None),
    ((20, 28, 30), None),
    ((2, 30), (2, 30)),
    ((100, 6), (6, 100)),
    ((1, 5), (1, 5)),
    ((5, 1), (1, 5)),
    ((28, 28), None),
    ((6, 8), None),
    ((9,), (9,)),
]


@pytest.mark.parametrize(("given", "expected"), CASES)
def test_channels_are_found_or_asked_for(
    tmp_path: Path, given: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    x = np.random.default_rng(0).random((3, *given)).astype(np.float32)
    np.savez(tmp_path / "own.npz", x=x)
    ways = [
        lambda: Dataset.from_arrays(x),
        lambda: Dataset.from_arrays(torch.from_numpy(x)),
        lambda: Dataset.of({"x": x}),
        lambda: Dataset.from_clients([x]),
        lambda: npz(
            SourceConfig(
                name="npz",
                path=str(tmp_path / "own.npz"),
                kind="vector" if len(given) == 1 else "auto",
            )
        ),
    ]
    for way in ways:
        if expected is None:
            with pytest.raises(DataError, match="leaves open") as caught:
                way()
            assert "layout" in caught.value.remedy
            continue
        data = way()
        assert data.shape == expected
        turned = expected != given
        assert bool(data.notes) == turned
        if turned:
            torch.testing.assert_close(data.x[:, 0], torch.from_numpy(x[..., 0].copy()))


def test_what_is_said_is_believed(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((3, 4, 4, 4)).astype(np.float32)
    first, last = (
        Dataset.from_arrays(x, layout=layout) for layout in ("channels_first", "channels_last")
    )
    assert np.array_equal(first.x.numpy(), x)
    assert np.array_equal(last.x.numpy(), x.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "own.npz", x=x)
    source = SourceConfig(name="npz", path=str(tmp_path / "own.npz"), layout="channels_last")
    assert torch.equal(npz(source).x, last.x)
    grey = Dataset.from_arrays(x[0], kind="image")
    assert grey.reading == "images of 4 x 4 pixels, 1 channel"
    assert Dataset.from_arrays(x[0, 0], kind="series").shape == (1, 4)
    for wrong in ({"layout": "last"}, {"kind": "video"}):
        with pytest.raises(DataError, match="unknown"):
            Dataset.from_arrays(x, **wrong)


def test_the_reading_in_words() -> None:
    assert Dataset.from_arrays(torch.rand(2, 100, 6)).reading == "100 steps of 6 channels"
    assert Dataset.from_arrays(torch.rand(2, 1)).reading == "1 column"
    assert Dataset.from_arrays(
        torch.rand(2, 20), columns=[f"c{i}" for i in range(20)]
    ).reading.startswith("20 columns: c0, c1")
