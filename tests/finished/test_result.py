"""Using what a run leaves: embedding, predicting, assigning; in memory and from a folder; and what
is shown of it.
"""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images, tiny_config
from torch import nn

import secure_fl
from secure_fl import Federation, FederationConfig, Result, assign_pool, load_result
from secure_fl.errors import DataError, ModelError, RunFolderError
from secure_fl.federation.protections.protection import Trained
from secure_fl.federation.state import Place, State
from secure_fl.objectives import TwoViews


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return Federation(tiny_config(), data=make_images(240)).run(
        tmp_path_factory.mktemp("made") / "run"
    )


@pytest.fixture(scope="module")
def loaded(made: Result) -> Result:
    assert made.folder is not None
    return load_result(made.folder)


def test_a_loaded_result_is_the_one_that_was_made(made: Result, loaded: Result) -> None:
    x = make_images(9, seed=5).x
    assert loaded.choices == made.choices
    assert loaded.names == made.names == ("0", "1", "2", "3")
    assert loaded.records == made.records
    assert loaded.summary == made.summary
    assert torch.equal(loaded.embed(x), made.embed(x))
    for client in range(4):
        assert torch.equal(loaded.predict_proba(x, client), made.predict_proba(x, client))
    assert loaded.assign(x) == made.assign(x)


def test_each_client_is_served_by_its_own_pool(made: Result) -> None:
    data = make_images(30, seed=9)
    for client, turns in ((0, 0), (1, 2)):
        x = torch.rot90(data.x, turns, (-2, -1))
        proba = made.predict_proba(x, client)
        torch.testing.assert_close(proba, made.pools[made.choices[client]](x).softmax(1))
        torch.testing.assert_close(proba.sum(1), torch.ones(30))
        assert torch.equal(made.predict(x, client), proba.argmax(1))
        assert torch.equal(made.predict(x, str(client)), made.predict(x, pool=made.choices[client]))
        assert torch.equal(made.predict(x, np.int64(client)), made.predict(x, client))  # type: ignore[arg-type]
        assert float((made.predict(x, client) == data.y).double().mean()) > 0.8


def test_without_a_client_the_examples_choose(made: Result) -> None:
    x = make_images(30, seed=9).x
    assert torch.equal(made.predict(x), made.predict(x, pool=made.assign(x).pool))
    labelled = made.assign(x, make_images(30, seed=9).y)
    assert labelled.by == "loss"
    assert made.assign(x).by == "sketch distance"


def test_arrays_and_files_are_prepared_the_same_way(made: Result, tmp_path: Path) -> None:
    data = make_images(30, seed=9)
    np.savez(tmp_path / "new.npz", x=data.x.numpy(), y=data.y.numpy())
    assert made.folder is not None
    assert (
        assign_pool(made.folder, tmp_path / "new.npz")
        == made.assign(data.x, data.y)
        == made.assign(data.x.numpy(), data.y.numpy())
    )


def test_bytes_and_missing_or_trailing_channels(made: Result) -> None:
    x = (255 * make_images(6).x).round().to(torch.uint8)
    expected = made.embed(x.float() / 255)
    torch.testing.assert_close(made.embed(x), expected)
    torch.testing.assert_close(made.embed(x[:, 0]), expected)
    torch.testing.assert_close(made.embed(x.permute(0, 2, 3, 1).numpy()), expected)
    torch.testing.assert_close(made.embed(x.tolist()), expected * 0 + made.embed(x.float()))  # type: ignore[arg-type]


def test_scaled_series_are_scaled_for_prediction_too(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    x = 5 + torch.randn(120, 2, 40, generator=generator) * (1 + 3 * y[:, None, None])
    np.savez(tmp_path / "series.npz", x=x.numpy(), y=y.numpy())
    source = {"name": "npz", "path": str(tmp_path / "series.npz"), "kind": "series"}
    tables: dict[str, Any] = {
        "data": {"sources": [source]},
        "partition": {"kind": "iid", "clients": 4},
        "model": {"encoder": "auto"},
    }
    result = Federation(
        tiny_config(**tables, pretrain={"mode": "none"}, pools={"start": "random", "rounds": 1})
    ).run()
    scaled = (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True, correction=0)
    torch.testing.assert_close(
        result.embed(x), result.encoder(scaled).detach(), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(result.embed(x), result.encoder(x).detach())


def test_what_is_refused(made: Result) -> None:
    x = make_images(4).x
    for client in (4, -1, "five", True, 1.5, None.__class__):
        with pytest.raises(ModelError, match="no such client"):
            made.predict(x, client)  # type: ignore[arg-type]
    for pool in (2, -1, "0", True):
        with pytest.raises(ModelError, match="no such pool"):
            made.predict(x, pool=pool)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="both given"):
        made.predict(x, 0, pool=0)
    with pytest.raises(DataError, match=r"not of shape \(1, 8, 8\)"):
        made.embed(torch.rand(4, 1, 9, 9))
    with pytest.raises(DataError, match="labels outside the federation's"):
        made.assign(x, torch.tensor([0, 1, 2, 3]))
    with pytest.raises(DataError, match="labels outside the federation's"):
        made.assign(x, np.array(["a", "b", "a", "b"]))
    with pytest.raises(DataError, match="differ in shape"):
        made.embed([[1.0], [1.0, 2.0]])  # type: ignore[arg-type]


def test_a_run_that_does_not_tell_asks_for_the_pool(tmp_path: Path) -> None:
    images = make_images(240)
    made = Federation(tiny_config(evaluate={"enabled": False}), data=images).run(tmp_path / "run")
    loaded, x = load_result(tmp_path / "run"), images.x[:5]
    with pytest.raises(ModelError, match="pass pool="):
        loaded.predict(x, 0)
    assert torch.equal(loaded.predict(x, pool=1), made.predict(x, pool=1))
    assert loaded.names == ()


def test_runs_without_pools_or_without_labels(tmp_path: Path) -> None:
    images = make_images(240)
    bare = Federation(tiny_config(pools={"enabled": False}), data=images).run(tmp_path / "bare")
    assert torch.equal(load_result(tmp_path / "bare").embed(images.x[:3]), bare.embed(images.x[:3]))
    with pytest.raises(ModelError, match="has no pools"):
        bare.predict(images.x[:3])
    with pytest.raises(ModelError, match="has no pools"):
        bare.assign(images.x[:3])
    tables = {"pools": {"task": "self_supervised"}, "evaluate": {"enabled": False}}
    unlabelled = Federation(tiny_config(**tables), data=images.unlabelled()).run()
    with pytest.raises(ModelError, match="know no classes"):
        unlabelled.predict(images.x[:3], pool=0)
    assert unlabelled.assign(images.x[:8]).by == "loss"


def test_own_encoders_are_passed_to_load(tmp_path: Path) -> None:
    images, module = make_images(240), nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    made = Federation(tiny_config(), data=images, encoder=module).run(tmp_path / "run")
    with pytest.raises(ModelError, match="pass encoder="):
        load_result(tmp_path / "run")
    loaded = load_result(tmp_path / "run", nn.Sequential(nn.Flatten(), nn.Linear(64, 16)))
    assert torch.equal(loaded.predict_proba(images.x[:5], 1), made.predict_proba(images.x[:5], 1))
    with pytest.raises(RunFolderError, match="holds no run"):
        load_result(tmp_path)


def test_names_of_classes_are_understood(made: Result) -> None:
    """Where the card has them."""
    card = dataclasses.replace(made.models.card)
    object.__setattr__(card, "class_names", ("ant", "bee", "cat"))
    named = dataclasses.replace(made, models=dataclasses.replace(made.models, card=card))
    data = make_images(30, seed=9)
    by_name = named.assign(data.x, np.array(["ant", "bee", "cat"])[data.y.numpy()])
    assert by_name == made.assign(data.x, data.y)
    with pytest.raises(DataError, match="use the run's: ant, bee, cat") as caught:
        named.assign(data.x[:2], np.array(["ant", "wasp"]))
    assert "wasp" not in str(caught.value)


def test_names_of_clients_are_understood(made: Result) -> None:
    named = dataclasses.replace(made, names=("north", "south", "east", "west"))
    x = make_images(4).x
    assert torch.equal(named.predict(x, "south"), made.predict(x, 1))
    with pytest.raises(ModelError, match="north, south, east, west"):
        named.predict(x, "up")


def test_reprs_are_short_and_show_no_tensor(made: Result) -> None:
    images = make_images(240)
    federation = Federation(FederationConfig(), data=images)
    views = TwoViews(images.x, images.x)
    state = State(Place(0, 0), {"encoder": images.x}, {"sketch.spread": 0.125})
    shown = [
        repr(one)
        for one in (
            made,
            images,
            federation,
            federation.clients[0],
            state,
            Trained(images.x),
            views,
        )
    ]
    for text in shown:
        assert len(text) < 250
        assert not re.search(r"tensor\(|0\.\d\d|240", text), text
    assert "pools=2" in shown[0]
    assert "(1, 8, 8)" in shown[1]


def test_no_dataclass_shows_a_tensor() -> None:
    found = []
    for module in pkgutil.walk_packages(secure_fl.__path__, "secure_fl."):
        if module.name.startswith(("secure_fl.cli", "secure_fl.deployment.flower.")):
            continue  # commands, and apps that need Flower
        for name, kind in vars(import_module(module.name)).items():
            if (
                inspect.isclass(kind)
                and dataclasses.is_dataclass(kind)
                and kind.__module__ == module.name
            ):
                own = not hasattr(kind.__repr__, "__wrapped__")
                shown = [
                    field.name
                    for field in dataclasses.fields(kind)
                    if field.repr and re.search(r"Tensor|ndarray|nn\.Module$", str(field.type))
                ]
                found += [f"{module.name}.{name}.{field}" for field in shown if not own]
    assert found == []
