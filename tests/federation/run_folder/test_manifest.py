"""Who may read what of a run's folder: every field is tagged, public ones follow from no example,
and the experimenter's can be left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.run_folder.run_record import fields, tagged, untagged
from helpers import StopAfter, make_images, tiny_config

from secure_fl import Dataset, Federation, FederationConfig, Result
from secure_fl.engines import embedded
from secure_fl.errors import RunFolderError
from secure_fl.federation.local.sketches import ReleasedSketch
from secure_fl.federation.run_folder import manifest
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.run_folder.tags import EXPERIMENTER, PUBLIC
from secure_fl.federation.steps.cluster import Cluster
from secure_fl.privacy.noise import NoiseSource
from secure_fl.report.page import write_report

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

EXAMPLE = {"unit": "example", "noise": 4.0, "epsilon": 60.0}
CLIENT = {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3}
OFF = {"evaluate": {"enabled": False}}

RUNS: dict[str, dict[str, Any]] = {
    "open": {},
    "masked": {"security": {"protection": "masked"}, "partition": {"clients": 6}},
    "encrypted": {
        "security": {"protection": "bfv+masked"},
        "partition": {"clients": 6},
        "privacy": EXAMPLE,
    },
    "choice": {
        "privacy": {**EXAMPLE, "choice": "exponential", "choice_every": 2},
        "pools": {"start": "pretrained"},
    },
    "client": {"privacy": {**CLIENT, "adaptive_clip": True}},
    "farthest": {"pools": {"start": "farthest"}},
    "restarts": {"pools": {"start": "restarts"}},
    "self-supervised": {
        "pools": {"task": "self_supervised"},
        "evaluate": {"fine_tune": [0.5], "fine_tune_epochs": 1},
    },
    "no pools": {"pools": {"enabled": False}, "privacy": EXAMPLE},
    "central": {
        "pretrain": {"mode": "centralized", "source": {"name": "digits", "limit": 60}},
        "privacy": EXAMPLE,
    },
    "robust": {
        "partition": {"clients": 18, "min_examples": 2},
        "security": {"protection": "masked", "robust": "median", "group_size": 6},
        "objective": {"assign": "modulo"},
        "pools": {"rounds": 2},
    },
}


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


def short(**tables: dict[str, Any]) -> FederationConfig:
    """As few and as short rounds as there can be."""
    base: dict[str, dict[str, Any]] = {
        "pretrain": {"rounds": 1},
        "pools": {"rounds": 2, "local_epochs": 1, "sketch_iterations": 1},
        "evaluate": {"probe_epochs": 1},
    }
    return tiny_config(
        **{name: base.get(name, {}) | tables.get(name, {}) for name in base | tables}
    )


def rules(config: FederationConfig) -> dict[str, Any]:
    """The tags of a run that leaves nothing out."""
    files: dict[str, Any] = replace(Manifest.of(config), experiments=True).as_dict()["files"]
    return files


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("enabled", [True, False], ids=["measured", "not measured"])
def test_every_field_of_every_file_is_tagged(tmp_path: Path, name: str, enabled: bool) -> None:
    tables = RUNS[name]
    config = short(**tables | {"evaluate": {**tables.get("evaluate", {}), "enabled": enabled}})
    Federation(config, data=make_images(130)).run(tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "run" / "report.html")
    assert untagged(tmp_path / "run") == []
    tags = {tag for tag, _ in fields(tmp_path / "run").values()}
    assert all(tag in (PUBLIC, EXPERIMENTER) or str(tag).startswith("released:") for tag in tags)
    assert tags <= set(json.loads((tmp_path / "run" / "manifest.json").read_text())["tags"]), (
        "what each says is said"
    )
    assert bool(tagged(tmp_path / "run", EXPERIMENTER, rules(config))) == enabled


def test_a_run_that_is_under_way_holds_tagged_fields_only(tmp_path: Path, images: Dataset) -> None:
    stored = []
    for stop in (1, 4, 6):
        with pytest.raises(KeyboardInterrupt):
            Federation(
                short(privacy=EXAMPLE),
                data=images,
                callbacks=[StopAfter(stop, midway=True, at_end=True)],
            ).run(tmp_path / str(stop))
        assert untagged(tmp_path / str(stop)) == []
        stored += tagged(tmp_path / str(stop), "released:stored")
    assert stored


def test_a_loaded_encoder_and_what_it_is_made_of_are_tagged_too(
    tmp_path: Path, images: Dataset
) -> None:
    Federation(short(pools={"enabled": False}, privacy=EXAMPLE), data=images).run(
        tmp_path / "first"
    )
    loading = {"mode": "load", "load_from": str(tmp_path / "first")}
    Federation(short(pretrain=loading, privacy=EXAMPLE), data=images).run(tmp_path / "second")
    assert untagged(tmp_path / "second") == []
    assert tagged(tmp_path / "second", "released:loaded")


def test_a_new_field_is_not_written_before_somebody_tagged_it(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe = Cluster.observe

    @dataclass(frozen=True)
    class More(Metrics):
        largest_client: int = 40

    def observed(self: Cluster, *given: Any) -> Metrics:
        return More(**vars(observe(self, *given)))

    monkeypatch.setattr(Cluster, "observe", observed)
    with pytest.raises(RunFolderError, match="without a tag") as caught:
        Federation(short(), data=images).run(tmp_path / "run")
    assert caught.value.field == "metrics.jsonl/metrics/largest_client"
    whole = Manifest.of(short())
    untagged_documents: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("summary.json", {"name": "x", "versions": {"torch": {"cuda": 1}}}),
        ("model/model.json", {"shape": {"height": 8}}),
        ("checkpoints/01-00002-000004/state.safetensors", {"sketches": torch.zeros(2)}),
        ("notes.json", {"x": 1}),
    )
    for file, document in untagged_documents:
        with pytest.raises(RunFolderError, match="without a tag"):
            whole.view(file, document)


def test_a_document_is_written_as_it_is_but_for_what_is_left_out() -> None:
    line = {
        "phase": "cluster",
        "seconds": 1.0,
        "metrics": {"loss": None, "choices": {"0": 1}, "refused": ["a"], "terms": {}},
    }
    assert Manifest.of(short()).view("metrics.jsonl", line) == line
    assert Manifest.of(short(**OFF)).view("metrics.jsonl", line) == {
        "phase": "cluster",
        "metrics": {"refused": ["a"]},
    }
    assert Manifest.of(short(**OFF)).view("metrics.jsonl", {"phase": "centre", "metrics": {}}) == {
        "phase": "centre",
        "metrics": {},
    }
    assert Manifest.of(short(**OFF)).view("partition.json", {"clients": [{"client": 0}]}) == {}


# Public is what follows from no example


def neighbours(privacy: Mapping[str, object] | None) -> tuple[Dataset, Dataset]:
    """Two data sets that differ in one example, pixels and label; at client level in all of one
    client, its size too.
    """
    images = make_images(120)
    if privacy is CLIENT:
        parts = [(images.x[i::4], images.y[i::4]) for i in range(4)]
        other = make_images(20, seed=9)
        return tuple(
            Dataset.from_clients(clients, classes=3)
            for clients in (parts, [(other.x, other.y), *parts[1:]])
        )  # type: ignore[return-value]
    trained = Federation(short(privacy=privacy), data=images).clients[0].train.x[1]
    here = (images.x == trained).flatten(1).all(1)
    other = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(3))
    return images, replace(
        images,
        x=torch.where(here[:, None, None, None], other, images.x),
        y=torch.where(here, (images.y + 1) % 3, images.y),
    )


def public_differences(
    folder: Path, config: FederationConfig, data: tuple[Dataset, Dataset]
) -> list[tuple[str, str]]:
    """Public fields, by the manifest in force, in which runs over two neighbours differ."""
    runs = []
    for number, each in enumerate(data):
        Federation(config, data=each).run(folder / str(number))
        runs.append(tagged(folder / str(number), PUBLIC))
    return [
        where
        for where in runs[0].keys() | runs[1].keys()
        if runs[0].get(where) != runs[1].get(where)
    ]


@pytest.mark.parametrize(
    "privacy",
    [EXAMPLE, CLIENT, {**EXAMPLE, "choice": "exponential"}],
    ids=["example", "client", "choice"],
)
def test_no_public_field_changes_with_an_example(
    tmp_path: Path, privacy: dict[str, object]
) -> None:
    kind: dict[str, dict[str, Any]] = (
        {"partition": {"kind": "natural"}} if privacy is CLIENT else {}
    )
    config = short(
        privacy=privacy,
        runtime={"checkpoint_every": 3},
        pools={"warmup_rounds": 0, "sketch_iterations": 1},
        **kind,
    )
    assert public_differences(tmp_path, config, neighbours(privacy)) == []


def test_how_much_was_opened_shows_choices_and_is_not_public(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that moves takes a pool below the minimum: it stays closed, and the round
    is smaller.
    """
    config = short(
        privacy=EXAMPLE, **OFF, partition={"clients": 6}, security={"protection": "masked"}
    )
    runs = []
    for number, chosen in enumerate(((0, 0, 0, 1, 1, 1), (0, 0, 0, 0, 1, 1))):
        monkeypatch.setattr(
            ReleasedSketch, "nearest", lambda self, _, chosen=chosen: chosen[self._releasing.client]
        )
        Federation(config, data=make_images(120)).run(tmp_path / str(number))
        runs.append(fields(tmp_path / str(number)))
    differing = [where for where in runs[0] if runs[0][where] != runs[1].get(where)]
    assert ("summary.json", "/costs/cluster/bytes_up") in differing
    assert [where for where in differing if runs[0][where][0] == PUBLIC] == []


def test_a_private_field_that_is_called_public_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged = manifest.rules_of

    def called_public(config: FederationConfig) -> dict[str, Any]:
        rules: dict[str, Any] = dict(tagged(config))
        rules["summary.json"] |= {"label_skew": PUBLIC}
        rules["metrics.jsonl"]["metrics"] |= {"accuracy": PUBLIC}
        return rules

    monkeypatch.setattr(manifest, "rules_of", called_public)
    found = public_differences(tmp_path, short(privacy=EXAMPLE), neighbours(EXAMPLE))
    assert ("summary.json", "/label_skew") in found
    assert any(place.endswith("/accuracy") for _, place in found)


def test_sizes_are_public_where_an_example_is_hidden_and_private_where_a_client_is() -> None:
    tags = [
        rules(short(privacy={"unit": unit}))["summary.json"]["examples"]
        for unit in ("none", "example", "client")
    ]
    assert tags == [EXPERIMENTER, PUBLIC, EXPERIMENTER]


# The experimenter's fields left out


def secrets_of(result: Result) -> list[str]:
    """Numbers that the process read off its clients, as JSON writes them; short ones might be met
    by chance.
    """
    pools = result.summary.pools
    numbers = [
        result.summary.label_skew,
        pools.test_loss,
        *pools.accuracies.values(),
        *pools.accuracy_per_round,
    ]
    numbers += [record.metrics.loss for record in result.records if record.metrics.loss is not None]
    return [text for text in map(json.dumps, numbers) if len(text) > 6]


@pytest.mark.parametrize("privacy", [None, EXAMPLE, CLIENT], ids=["none", "example", "client"])
def test_without_evaluation_nothing_of_the_experimenters_is_written(
    tmp_path: Path, privacy: dict[str, object] | None
) -> None:
    config = short(**OFF, **({} if privacy is None else {"privacy": privacy}))
    result = Federation(config, data=make_images(250)).run(tmp_path / "run")
    assert tagged(tmp_path / "run", EXPERIMENTER, rules(config)) == {}
    assert not (tmp_path / "run" / "partition.json").exists()
    assert not (tmp_path / "run" / "embedding.json").exists()
    written = "\n".join(
        path.read_text()
        for path in (tmp_path / "run").rglob("*")
        if path.suffix in (".json", ".jsonl", ".toml")
    )
    assert secrets_of(result)
    assert [secret for secret in secrets_of(result) if secret in written] == []
    for word in (
        "accuracy",
        "accuracies",
        "choices",
        "label_skew",
        "loss",
        "test_loss",
        "seconds",
        "ari",
    ):
        assert f'"{word}":' not in written


def test_a_writer_that_passes_the_manifest_by_is_found(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Manifest, "view", lambda self, file, document: dict(document))
    config = short(**OFF)
    Federation(config, data=images).run(tmp_path / "run")
    found = {place for _, place in tagged(tmp_path / "run", EXPERIMENTER, rules(config))}
    assert {"/label_skew", "/choices/0", "/pools/accuracy"} <= found


@pytest.mark.parametrize(
    "privacy",
    [None, {**EXAMPLE, "choice": "exponential", "choice_every": 2}],
    ids=["none", "choice"],
)
def test_such_a_run_is_stopped_and_resumed_to_the_same_record(
    tmp_path: Path, images: Dataset, privacy: dict[str, object] | None
) -> None:
    config = short(**OFF, **({} if privacy is None else {"privacy": privacy}))
    whole = Federation(config, data=images).run(tmp_path / "whole")
    files = ("metrics.jsonl", "summary.json", "model/model.json")
    expected = [(tmp_path / "whole" / file).read_text() for file in files]
    for stop in range(2, len(whole.records), 3):
        out = tmp_path / f"stopped-{stop}"
        with pytest.raises(KeyboardInterrupt):
            Federation(config, data=images, callbacks=[StopAfter(stop, midway=stop % 2 == 0)]).run(
                out
            )
        resumed = Federation(config, data=images).run(out, resume=True)
        assert [(out / file).read_text() for file in files] == expected
        assert resumed.choices == whole.choices, "this process asked for them"
    again = Federation(config, data=images).run(tmp_path / "whole", resume=True)
    assert [(tmp_path / "whole" / file).read_text() for file in files] == expected
    assert again.choices == {}, "and nobody wrote them down"


def test_hooks_hear_what_is_recorded(images: Dataset) -> None:
    heard: list[Any] = []

    class Ear(StopAfter):
        def on_round(self, record: Any) -> None:
            heard.append(record)

    result = Federation(short(**OFF), data=images, callbacks=[Ear(10**9)]).run()
    assert len(heard) == len(result.records)
    assert all(record.seconds is None and record.metrics.choices is None for record in heard)


def test_what_is_outside_of_the_claim_is_said_in_the_record(
    tmp_path: Path, images: Dataset
) -> None:
    told = (
        Federation(short(privacy=EXAMPLE), data=images)
        .run(tmp_path / "run")
        .summary.privacy.outside
    )
    assert "partition.json" in told
    assert any(line.startswith("summary.json: ") and "label_skew" in line for line in told)
    assert (
        Federation(short(privacy=EXAMPLE, **OFF), data=images).run().summary.privacy.outside == ()
    )
