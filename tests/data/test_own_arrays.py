"""A user's own npz and npy files, one file or one a client."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from data.own_files import read, refused
from helpers import tiny_config

from secure_fl import Federation

RNG = np.random.default_rng(0)


def test_one_npz_a_client(tmp_path: Path) -> None:
    for number, name in enumerate(("b-ward", "a-ward")):
        np.savez(
            tmp_path / f"{name}.npz",
            x=np.full((4, 1, 8, 8), number, np.float32),
            y=np.array([number, 2, number, 2]),
        )
    data = read("npz", tmp_path)
    assert data.client_names == ("a-ward", "b-ward")
    assert data.x[data.client == 1].max() == 0, "b-ward's"
    assert (data.classes, data.class_names) == (3, ())
    assert data.y.tolist() == [1, 2, 1, 2, 0, 2, 0, 2]
    clients = Federation(
        tiny_config(partition={"kind": "auto"}, pools={"count": 1}), data=data
    ).clients
    assert [client.name for client in clients] == ["a-ward", "b-ward"]
    np.savez(tmp_path / "c.npz", x=np.zeros((4, 1, 8, 8)), client=np.arange(4))
    assert refused("npz", tmp_path).field == "data.sources.client"
    assert "no file of this kind" in refused("npz", tmp_path / "*.nothing").problem


def test_npz_roles_by_name(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(
        path,
        x=np.zeros((4, 1, 8, 8)),
        what=np.array(["u", "v", "u", "v"]),
        who=np.array([1, 1, 2, 2]),
        split=np.array([0, 2, 0, 2]),
    )
    data = read("npz", path, label="what", client="who")
    assert (data.class_names, data.client_names) == (("u", "v"), ("1", "2"))
    assert data.split is not None
    assert refused("npz", path, label="nothing").field == "data.sources.label"


def test_an_archive_that_grows_beyond_measure_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secure_fl.data.sources import npz as reader

    monkeypatch.setattr(reader, "_SMALL", 1 << 16)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((400, 1, 16, 16)))
    assert "too large when expanded" in refused("npz", path).problem
    np.savez_compressed(path, x=RNG.random((400, 1, 16, 16)))
    assert len(read("npz", path)) == 400, "what hardly shrinks is no bomb"
    monkeypatch.setattr(reader, "_memory", lambda: 1000)
    assert "too large when expanded" in refused("npz", path).problem


def test_a_header_that_promises_more_than_is_there_is_refused_unread(tmp_path: Path) -> None:
    import io

    held = io.BytesIO()
    np.save(held, np.zeros((4, 1, 8, 8)))
    promised = held.getvalue().replace(b"(4, 1, 8, 8), }        ", b"(4000000, 1, 8, 8), }  ")
    assert promised != held.getvalue()
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x.npy", promised)
    assert "promises more" in refused("npz", tmp_path / "own.npz").problem


def test_mapped_arrays_stay_where_they_lie(tmp_path: Path) -> None:
    x = RNG.random((30, 2, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(30) % 3)
    np.save(tmp_path / "who.npy", np.array(["b", "a"] * 15))
    data = read("npy", tmp_path / "x.npy", {"scale": "none"}, label="y.npy", client="who.npy")
    assert (data.classes, data.client_names) == (3, ("a", "b"))
    assert np.array_equal(data.x.numpy(), x)
    assert any(
        start <= data.x.data_ptr() < end
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(tmp_path / "x.npy"))
        for start, end in [[int(number, 16) for number in line.split()[0].split("-")]]
    ), "not copied"
    before = (tmp_path / "x.npy").read_bytes()
    data.x[0] = 7
    assert (tmp_path / "x.npy").read_bytes() == before, "what is written stays in memory"
    whole = read("npy", tmp_path, client="who")
    assert (len(whole), whole.classes, whole.client_names) == (30, 3, ("a", "b"))


def test_npy_of_clients_and_refusals(tmp_path: Path) -> None:
    for name in ("n", "s"):
        np.save(tmp_path / f"{name}.npy", np.full((3, 1, 8, 8), 255, np.uint8))
    data = read("npy", tmp_path)
    assert (data.client_names, float(data.x.max())) == (("n", "s"), 1.0)
    assert "no such file" in refused("npy", tmp_path / "absent.npy").problem
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY8765" * 9)
    assert "8765" not in str(refused("npy", tmp_path / "torn.npy"))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    assert "not a readable" in refused("npy", tmp_path / "objects.npy").problem


def test_declared_names_number_the_labels_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, x=np.zeros((4, 1, 8, 8)), y=np.array([-1, 1, 1, -1]))
    assert "-1 and 1 only" in str(refused("npz", path))
    data = read("npz", path, {"class_names": ["-1", "1"]})
    assert (data.y.tolist(), data.classes, data.class_names, data.declared) == (
        [0, 1, 1, 0],
        2,
        ("-1", "1"),
        True,
    )
    np.savez(path, x=np.zeros((4, 1, 8, 8)), y=np.array(["dog", "cat", "dog", "-1"]))
    data = read("npz", path, {"class_names": ["horse", "dog", "cat"]})
    assert (data.y.tolist(), data.classes) == ([1, 2, 1, -1], 3)
    assert "data.class_names" in refused("npz", path, {"class_names": ["horse", "dog"]}).remedy
