"""Whole runs: every start and mode, resume after a stop at any round, the caller's own modules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import StopAfter, make_images, tiny_config
from safetensors.torch import load_file
from torch import Tensor, nn

from secure_fl import (
    Callback,
    Dataset,
    Federation,
    FederationConfig,
    Result,
    load_encoder,
    load_pools,
)
from secure_fl.errors import DataError, FileError, ModelError, RunFolderError
from secure_fl.finished.assign import assign_pool


def numbers(result: Result) -> tuple[Any, ...]:
    """All that must not depend on interruptions: everything but wall time."""
    rounds = [
        (r.phase, r.round, r.clients, r.bytes_down, r.bytes_up, r.metrics) for r in result.records
    ]
    return rounds, replace(result.summary, costs={}), result.choices


def tensors(folder: Path) -> dict[str, Tensor]:
    return {
        **load_file(folder / "model" / "encoder.safetensors"),
        **load_file(folder / "model" / "pools.safetensors"),
    }


FROZEN = pytest.param({"pools": {"encoder": "frozen"}}, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "tables",
    [{}, {"pools": {"start": "farthest", "encoder": "shared"}}, FROZEN],
)
def test_resume_equals_uninterrupted(
    tmp_path: Path, images: Dataset, tables: dict[str, Any]
) -> None:
    config = tiny_config(**tables)
    whole = Federation(config, data=images).run(tmp_path / "whole")
    expected, models = numbers(whole), tensors(tmp_path / "whole")
    for stop in range(1, len(whole.records), 2 if tables else 1):
        out = tmp_path / f"stopped-{stop}"
        stops = StopAfter(stop, midway=stop % 2 == 0)
        with pytest.raises(KeyboardInterrupt):
            Federation(config, data=images, callbacks=[stops]).run(out)
        assert not (out / "summary.json").exists()
        resumed = Federation(config, data=images).run(out, resume=True)
        assert numbers(resumed) == expected, f"stopped after {stop} rounds"
        again = tensors(out)
        assert all(torch.equal(models[name], again[name]) for name in models)
        assert (out / "metrics.jsonl").read_text().count("\n") == len(whole.records)


def test_resume_after_several_stops_with_rare_checkpoints(tmp_path: Path, images: Dataset) -> None:
    config = tiny_config(runtime={"checkpoint_every": 2})
    expected = numbers(Federation(config, data=images).run())
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        Federation(config, data=images, callbacks=[StopAfter(1)]).run(out)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Federation(config, data=images, callbacks=[StopAfter(3)]).run(out, resume=True)
    assert numbers(Federation(config, data=images).run(out, resume=True)) == expected


def test_a_torn_line_and_an_unfinished_checkpoint_do_no_harm(
    tmp_path: Path, images: Dataset
) -> None:
    config = tiny_config()
    expected = numbers(Federation(config, data=images).run())
    with pytest.raises(KeyboardInterrupt):
        Federation(config, data=images, callbacks=[StopAfter(4)]).run(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "clus')
    (tmp_path / "run" / "checkpoints" / ".writing").mkdir()
    (tmp_path / "run" / "checkpoints" / ".writing" / "state.safetensors").write_bytes(b"half")
    assert numbers(Federation(config, data=images).run(tmp_path / "run", resume=True)) == expected


def test_a_finished_run_resumes_to_itself(tmp_path: Path, images: Dataset) -> None:
    config = tiny_config()
    first = Federation(config, data=images).run(tmp_path / "run")
    assert numbers(Federation(config, data=images).run(tmp_path / "run", resume=True)) == numbers(
        first
    )


def test_damaged_checkpoints_are_refused(tmp_path: Path, images: Dataset) -> None:
    config, out = tiny_config(), tmp_path / "run"
    Federation(config, data=images).run(out)
    newest = sorted((out / "checkpoints").iterdir())[-1]
    raw = bytearray((newest / "state.safetensors").read_bytes())
    raw[-1] ^= 1
    (newest / "state.safetensors").write_bytes(raw)
    with pytest.raises(RunFolderError, match="do not match their hashes"):
        Federation(config, data=images).run(out, resume=True)
    (newest / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match="is damaged: not JSON"):
        Federation(config, data=images).run(out, resume=True)


def test_folders_are_not_mixed_up(tmp_path: Path, images: Dataset) -> None:
    config, out = tiny_config(), tmp_path / "run"
    with pytest.raises(RunFolderError, match="holds no run"):
        Federation(config, data=images).run(out, resume=True)
    Federation(config, data=images).run(out)
    with pytest.raises(RunFolderError, match="already holds something"):
        Federation(config, data=images).run(out)
    others = (
        Federation(tiny_config(pools={"lr": 0.3}), data=images),
        Federation(config, data=make_images(240, seed=1)),
        Federation(config),
        Federation(config, data=images, encoder=nn.Sequential(nn.Flatten(), nn.Linear(64, 16))),
    )
    for other in others:
        with pytest.raises(
            RunFolderError,
            match=r"another configuration, (data or encoder|which differs in pools\.lr)",
        ):
            other.run(out, resume=True)
    aside = (out / "partition.json").rename(tmp_path / "partition.json")
    with pytest.raises(FileError, match=r"partition\.json"):
        others[1].run(out, resume=True)
    aside.rename(out / "partition.json")
    (out / "metrics.jsonl").write_text("")
    with pytest.raises(RunFolderError, match="has lost rounds"):
        Federation(config, data=images).run(out, resume=True)


@pytest.mark.parametrize("start", ["random", "pretrained", "restarts", "farthest", "sketch"])
@pytest.mark.parametrize("encoder", ["finetune", "frozen", "shared"])
def test_every_start_with_every_encoder_mode(images: Dataset, start: str, encoder: str) -> None:
    result = Federation(tiny_config(pools={"start": start, "encoder": encoder}), data=images).run()
    assert len(result.pools) == 2
    assert sum(result.summary.pools.counts) == 4
    x = images.x[:5]
    equal = all(
        torch.equal(a, b)
        for a, b in zip(
            result.pools[0].encoder.parameters(), result.pools[1].encoder.parameters(), strict=True
        )
    )
    assert equal == (encoder != "finetune")
    assert result.pools[0](x).shape == (5, 3)


@pytest.mark.parametrize("name", ["ssd", "align_uniform", "nt_xent", "spectral_contrastive"])
def test_every_objective_pretrains(images: Dataset, name: str) -> None:
    result = Federation(
        tiny_config(objective={"name": name}, pools={"enabled": False}), data=images.unlabelled()
    ).run()
    assert [record.phase for record in result.records] == ["pretrain", "pretrain", "measure"]
    assert result.pools == []
    assert "knn" not in result.summary.representation.pretrained


def test_self_supervised_pools(images: Dataset) -> None:
    tables = {"pools": {"task": "self_supervised"}, "evaluate": {"enabled": False}}
    result = Federation(tiny_config(**tables), data=images.unlabelled()).run()
    assert result.summary.pools.accuracy is None
    assert result.pools[0](images.x[:3])[1].shape == (3, 16)


def test_centralized_pretraining_and_loading_it(tmp_path: Path, images: Dataset) -> None:
    source = {"name": "digits", "limit": 100}
    central = tiny_config(
        pretrain={"mode": "centralized", "source": source}, pools={"enabled": False}
    )
    first = Federation(central, data=images).run(tmp_path / "central")
    loaded = tiny_config(pretrain={"mode": "load", "load_from": str(tmp_path / "central")})
    second = Federation(loaded, data=images).run()
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.encoder.parameters(), second.encoder.parameters(), strict=True)
    )
    assert not any(record.phase == "pretrain" for record in second.records)


def test_fine_tuning_is_measured_when_asked(images: Dataset) -> None:
    tables = {
        "evaluate": {"fine_tune": [0.1, 0.5], "fine_tune_epochs": 2},
        "pools": {"enabled": False},
    }
    measured = (
        Federation(tiny_config(**tables), data=images).run().summary.representation.pretrained
    )
    assert {"fine_tune_0.1", "fine_tune_0.5", "linear_probe", "knn", "alignment"} <= set(measured)


class OwnEncoder(nn.Module):
    """What a user brings."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


@pytest.mark.parametrize("as_function", [False, True])
def test_own_module_and_augmentation(tmp_path: Path, images: Dataset, as_function: bool) -> None:
    calls = []

    def augment(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x + 0.05 * torch.randn_like(x)

    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return OwnEncoder()

    federation = Federation(
        tiny_config(), data=images, encoder=make if as_function else OwnEncoder(), augment=augment
    )
    result = federation.run(tmp_path / "run")
    assert calls
    assert result.encoder(images.x[:2]).shape == (2, 16)
    with pytest.raises(ModelError, match="caller's own"):
        load_encoder(tmp_path / "run")
    encoder = load_encoder(tmp_path / "run", OwnEncoder())
    torch.testing.assert_close(encoder(images.x[:4]), result.encoder(images.x[:4]))
    with pytest.raises(ModelError, match="do not fit"):
        load_encoder(tmp_path / "run", nn.Linear(2, 2))


def test_given_weights_are_kept_when_given_by_a_function(images: Dataset) -> None:
    module = OwnEncoder()
    config = tiny_config(
        pretrain={"mode": "none"}, pools={"start": "random", "rounds": 1, "encoder": "finetune"}
    )
    kept = Federation(config, data=images, encoder=lambda seed: module).run()
    assert torch.equal(kept.encoder.net[1].weight, module.net[1].weight)  # type: ignore[union-attr, index]
    assert len({id(pool.encoder) for pool in kept.pools} | {id(module), id(kept.encoder)}) == 4
    drawn = Federation(config, data=images, encoder=module).run()
    assert not torch.equal(drawn.encoder.net[1].weight, module.net[1].weight)  # type: ignore[union-attr, index]


def test_centralized_data_must_look_like_the_clients(images: Dataset) -> None:
    central = {"mode": "centralized", "source": {"name": "digits"}}
    wide = Dataset.from_arrays(torch.rand(60, 1, 12, 12), torch.arange(60) % 3)
    with pytest.raises(DataError, match="shape differs"):
        Federation(tiny_config(pretrain=central), data=wide)


def test_damaged_models_and_summaries_are_typed(tmp_path: Path, images: Dataset) -> None:
    Federation(tiny_config(), data=images).run(tmp_path / "run")
    file = tmp_path / "run" / "model" / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(RunFolderError, match=r"encoder.safetensors: is damaged"):
        load_encoder(tmp_path / "run")
    (tmp_path / "run" / "summary.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"summary.json: is damaged"):
        load_encoder(tmp_path / "run")


def test_assigning_prepares_examples_as_the_run_did(tmp_path: Path) -> None:
    """In-memory series are used as they are, so a newcomer's must be too."""
    import numpy as np

    generator = torch.Generator().manual_seed(0)
    y = torch.arange(160) % 2
    x = 5 + torch.randn(160, 2, 40, generator=generator) * (1 + 3 * y[:, None, None])
    config = tiny_config(
        partition={"kind": "iid", "clients": 4},
        model={"encoder": "auto"},
        pretrain={"mode": "none"},
        pools={"start": "random"},
    )
    result = Federation(config, data=Dataset.from_arrays(x, y)).run(tmp_path / "run")
    np.savez(tmp_path / "new.npz", x=x.numpy(), y=y.numpy())
    found = assign_pool(tmp_path / "run", tmp_path / "new.npz")
    for pool, row in zip(result.pools, found.scores, strict=True):
        assert row[0] == pytest.approx(nn.functional.cross_entropy(pool(x), y).item(), rel=1e-5)
    np.savez(tmp_path / "new.npz", x=x.numpy(), y=y.numpy() + 2)
    with pytest.raises(DataError, match="labels outside the federation's"):
        assign_pool(tmp_path / "run", tmp_path / "new.npz")


def test_vectors_can_be_assigned(tmp_path: Path) -> None:
    import numpy as np

    x, y = torch.randn(120, 9, generator=torch.Generator().manual_seed(0)), torch.arange(120) % 2
    config = tiny_config(
        partition={"kind": "iid"},
        model={"encoder": "auto"},
        pretrain={"mode": "none"},
        pools={"start": "random"},
    )
    Federation(config, data=Dataset.from_arrays(x, y)).run(tmp_path / "run")
    np.savez(tmp_path / "new.npz", x=x.numpy())
    assert assign_pool(tmp_path / "run", tmp_path / "new.npz").by == "entropy"


def test_models_load_as_they_were(tmp_path: Path, images: Dataset) -> None:
    result = Federation(tiny_config(), data=images).run(tmp_path / "run")
    pools, guide = load_pools(tmp_path / "run")
    for stored, made in zip(pools, result.pools, strict=True):
        assert torch.equal(stored(images.x[:6]), made(images.x[:6]))
    assert guide is not None
    assert guide.centres.shape[0] == 2
    assert torch.equal(load_encoder(tmp_path / "run")(images.x[:3]), result.encoder(images.x[:3]))


def test_batch_norm_models_run_too(images: Dataset) -> None:
    result = Federation(tiny_config(model={"norm": "batch"}), data=images).run()
    assert result.summary.pools.accuracy > 0.5


def test_natural_clients_through_the_api() -> None:
    parts = [make_images(count, seed=count) for count in (60, 45, 60, 45, 60, 45)]
    data = Dataset.from_clients([(part.x, part.y) for part in parts])
    config = FederationConfig(
        partition={"kind": "natural"},
        pretrain={"mode": "none"},
        pools={"count": 2, "rounds": 2, "start": "random"},
    )
    assert set(Federation(config, data=data).run().choices) == set(range(6))


def test_images_must_be_in_range_unless_the_augmentation_is_the_callers(images: Dataset) -> None:
    loud = Dataset.from_arrays(images.x * 3, images.y)
    with pytest.raises(DataError, match="cannot be augmented"):
        Federation(tiny_config(), data=loud)
    Federation(tiny_config(), data=loud, augment=lambda x: x)


def test_callbacks_hear_everything(images: Dataset) -> None:
    heard: list[str] = []

    class Ear(Callback):
        def on_phase(self, name: str, rounds: int, done: int) -> None:
            heard.append(name)

        def on_client(self, done: int, total: int) -> None:
            heard.append("client")

        def on_end(self, result: Result) -> None:
            heard.append("end")

    result = Federation(tiny_config(), data=images, callbacks=[Ear()]).run()
    assert [h for h in heard if h not in ("client", "end")] == [
        "pretrain",
        "measure",
        "sketch",
        "cluster",
        "evaluate",
    ]
    assert heard.count("client") == sum(record.clients for record in result.records)
    assert heard[-1] == "end"


def test_the_record_says_what_is_not_protected(tmp_path: Path, images: Dataset) -> None:
    Federation(tiny_config(), data=images).run(tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert any("no differential privacy" in line for line in summary["unprotected"])
    for name in (
        "config.toml",
        "metrics.jsonl",
        "partition.json",
        "embedding.json",
        "model/model.json",
    ):
        assert (tmp_path / "run" / name).is_file()
    assert not list((tmp_path / "run").rglob("*.pkl")) + list((tmp_path / "run").rglob("*.pt"))


def test_a_run_that_died_before_its_first_checkpoint_is_resumed_with_its_own_encoder_only(
    tmp_path: Path, images: Dataset
) -> None:
    config = tiny_config(runtime={"checkpoint_every": 100}, evaluate={"enabled": False})
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    with pytest.raises(KeyboardInterrupt):
        Federation(config, data=images, encoder=encoder, callbacks=[StopAfter(1)]).run(
            tmp_path / "run"
        )
    for other in (
        Federation(config, data=images),
        Federation(config.model_copy(update={"seed": 7}), data=images, encoder=encoder),
    ):
        with pytest.raises(RunFolderError, match="another configuration"):
            other.run(tmp_path / "run", resume=True)
    Federation(config, data=images, encoder=encoder).run(tmp_path / "run", resume=True)
