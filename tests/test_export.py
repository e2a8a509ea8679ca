"""Models out of a run: each form computes what the run's models do, and tells nothing that is
the experimenter's.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_images, tiny_config
from torch import nn

from secure_fl import Federation, Result
from secure_fl.config import FederationConfig
from secure_fl.errors import ConfigError, DependencyError, ModelError, RunFolderError
from secure_fl.export import export, load_exported
from secure_fl.federation.run_folder.secrecy import Secrecy
from secure_fl.federation.run_folder.summary import Privacy, Summary
from secure_fl.finished.model_page import model_page
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.chain import Mark
from secure_fl.privacy.claims import Adversary, PrivacyClaim

X = make_images(7, seed=3).x


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return Federation(tiny_config(), data=make_images(240)).run(
        tmp_path_factory.mktemp("made") / "run"
    )


def folder_of(result: Result) -> Path:
    assert result.folder is not None
    return result.folder


def computed(file: Path, x: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, {"x": x})]


def test_onnx_computes_what_the_models_do(made: Result, tmp_path: Path) -> None:
    written = export(folder_of(made), tmp_path / "onnx", ["onnx"])
    assert [path.name for path in written] == ["encoder.onnx", "pool-0.onnx", "pool-1.onnx"]
    for rows in (1, 7):  # it was traced with two
        np.testing.assert_allclose(
            computed(written[0], X[:rows].numpy())[0],
            made.embed(X[:rows]).numpy(),
            rtol=1e-4,
            atol=1e-5,
        )
        for number, pool in enumerate(made.pools):
            logits = computed(written[1 + number], X[:rows].numpy())[0]
            np.testing.assert_allclose(
                logits, pool(X[:rows]).detach().numpy(), rtol=1e-4, atol=1e-5
            )
    import onnx

    model = onnx.load(written[1])
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["secure_fl.shape"]) == [1, 8, 8]
    assert json.loads(facts["secure_fl.classes"]) == 3
    assert "divided by 255" in facts["secure_fl.preparation"]
    assert "secure_fl.choices" not in facts
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "logits"]
    here = str(Path(__file__).parents[1]).encode()
    assert not any(
        word in path.read_bytes() for path in written for word in (here, b"site-packages", b".py")
    )


def test_self_supervised_pools_on_wavelets_as_onnx(tmp_path: Path) -> None:
    images = make_images(240)
    tables = {
        "model": {"encoder": "scattering"},
        "pools": {"task": "self_supervised", "count": 1, "rounds": 1, "start": "random"},
        "pretrain": {"mode": "none"},
    }
    made = Federation(
        tiny_config(**tables, evaluate={"enabled": False}), data=images.unlabelled()
    ).run(tmp_path / "run")
    written = export(tmp_path / "run", tmp_path / "onnx", ["onnx"])
    for found, expected in zip(computed(written[1], X.numpy()), made.pools[0](X), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_hub_folder_reads_back(made: Result, tmp_path: Path) -> None:
    written = export(folder_of(made), tmp_path / "hub", ["hf"])
    assert [path.name for path in written] == ["README.md", "config.json", "model.safetensors"]
    models = load_exported(tmp_path / "hub")
    assert torch.equal(models.embed(models.prepare(X)), made.embed(X))
    assert torch.equal(models.probabilities(models.prepare(X), 1), made.predict_proba(X, pool=1))
    assert models.guide is not None
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["model_type"] == "secure_fl"
    assert "choices" not in config["card"]
    page = (tmp_path / "hub" / "README.md").read_text()
    assert page.startswith("---\nlibrary_name: secure_fl\n")
    assert "no differential privacy" in page
    assert "1 × 8 × 8" in page
    assert all(row.adversary in page for row in made.summary.secrecy)
    assert all(line in page for line in made.summary.unprotected)
    assert str(made.summary.pools.accuracy)[:6] not in page


def test_damaged_hub_folders_are_typed(made: Result, tmp_path: Path) -> None:
    export(folder_of(made), tmp_path / "hub", ["hf"])
    weights = tmp_path / "hub" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:99])
    with pytest.raises(RunFolderError, match=r"model\.safetensors: is damaged"):
        load_exported(tmp_path / "hub")
    (tmp_path / "hub" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RunFolderError, match=r"config\.json: is damaged"):
        load_exported(tmp_path / "hub")
    with pytest.raises(RunFolderError, match="holds no exported models"):
        load_exported(tmp_path)


def charged() -> Privacy:
    """A claim against the server, and one without a bound against the key holder."""
    claim = PrivacyClaim(
        epsilon=3.14159,
        delta=1e-5,
        unit=PrivacyUnit.EXAMPLE,
        adjacency=Adjacency.ADD_REMOVE,
        sampling="none",
        adversary=Adversary.SERVER,
        basis="derived",
        assumes=("honest clients",),
        not_covered=(),
    )
    return Privacy(
        unit="example",
        adjacency="add-remove",
        epsilon=3.14159,
        delta=1e-5,
        releases=1,
        ledger=Mark(1, "00"),
        claims=(claim, replace(claim, adversary=Adversary.KEY_HOLDER, epsilon=None)),
        budget=4.0,
        clients={},
        outside=(),
    )


def test_a_model_card_carries_the_claim_against_each_adversary() -> None:
    summary = Summary(
        name="ward",
        status="finished",
        seed=0,
        unprotected=("simulated",),
        secrecy=(Secrecy("server", "", "sums"),),
        clients=4,
        encoder_parameters=7,
        costs={},
        versions={},
        privacy=charged(),
    )
    card = {
        "shape": [1, 8, 8],
        "scale": "none",
        "image_size": 32,
        "classes": 3,
        "task": "supervised",
        "custom_encoder": True,
    }
    page = model_page(FederationConfig(name="ward"), card, summary)
    assert "| server | 3.14 | 1e-05 | example | add-remove | honest clients |" in page
    assert "| key holder | no bound |" in page
    assert "encoder=YourModule()" in page
    assert "resized to 32 × 32" in page


def test_several_forms_and_what_is_refused(made: Result, tmp_path: Path) -> None:
    both = {path.name for path in export(folder_of(made), tmp_path / "both", ["safetensors", "hf"])}
    assert both == {
        "encoder.safetensors",
        "pools.safetensors",
        "model.json",
        "config.toml",
        "model.safetensors",
        "config.json",
        "README.md",
    }
    with pytest.raises(RunFolderError, match="already holds something"):
        export(folder_of(made), tmp_path / "both")
    for forms in ([], ["pickle"]):
        with pytest.raises(ConfigError, match="no such form"):
            export(folder_of(made), tmp_path / "none", forms)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_own_encoders(tmp_path: Path) -> None:
    images, module = make_images(240), nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh())
    tables = {"pretrain": {"mode": "none"}, "pools": {"start": "random", "rounds": 1, "count": 1}}
    made = Federation(tiny_config(**tables), data=images, encoder=module).run(tmp_path / "run")
    with pytest.raises(ModelError, match=r"from Python: secure_fl\.export\.export"):
        export(tmp_path / "run", tmp_path / "onnx", ["onnx"])
    written = export(tmp_path / "run", tmp_path / "onnx", ["onnx"], encoder=module)
    np.testing.assert_allclose(
        computed(written[0], X.numpy())[0], made.embed(X).numpy(), rtol=1e-4, atol=1e-5
    )
    export(tmp_path / "run", tmp_path / "hub", ["hf"])
    assert "encoder=YourModule()" in (tmp_path / "hub" / "README.md").read_text()
    with pytest.raises(ModelError, match="pass encoder="):
        load_exported(tmp_path / "hub")
    models = load_exported(tmp_path / "hub", module)
    assert torch.equal(models.embed(models.prepare(X)), made.embed(X))


class Loops(nn.Module):
    """What ONNX has no form for."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.net(x)
        return h * 2 if float(h.detach().sum()) > 1e9 else h


def test_what_onnx_cannot_express_is_typed(tmp_path: Path) -> None:
    tables = {
        "pretrain": {"rounds": 1},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
    }
    Federation(tiny_config(**tables), data=make_images(240), encoder=Loops()).run(tmp_path / "run")
    with pytest.raises(ModelError, match="cannot be expressed in ONNX"):
        export(tmp_path / "run", tmp_path / "onnx", ["onnx"], encoder=Loops())
    assert not (tmp_path / "onnx").exists()


def test_onnx_is_optional(made: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DependencyError, match=r"pip install 'secure-fl\[onnx\]'"):
        export(folder_of(made), tmp_path / "onnx", ["onnx"])
