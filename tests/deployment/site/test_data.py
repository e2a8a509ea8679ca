"""A site's client is, bit for bit, what a run with everybody's files has for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_config

from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.deployment.site.data import own_examples, party_name, plan_clients, shape_of
from secure_fl.deployment.site.settings import SiteSettings
from secure_fl.errors import ConfigError, DataError, DeploymentError, PartitionError
from secure_fl.federation.plan import Plan
from secure_fl.run import Federation

SITES = ("north", "south")
PEOPLE = ("a-1", "b-2", "c-3")
NAMES = sorted(f"{site}.{person}" for site in SITES for person in PEOPLE)


def plan_of(config: FederationConfig, shape: tuple[int, ...], classes: int) -> Plan:
    """As far as data follow from it."""
    nothing = bytes(32)
    facts = (tuple(NAMES), nothing, nothing, nothing)
    return Plan(config.model_dump(mode="json"), shape, classes, *facts, 1 << 20, "server")


def settings(site: str, path: Path, **source: Any) -> SiteSettings:
    given = {"path": str(path), "client": "who", **source}
    return SiteSettings(name=site, data={"sources": [given]})


def write_table(path: Path, rows: list[tuple[str, int]], columns: str = "age,dose") -> Path:
    """A row is (who, number): its values follow from the number."""
    lines = [f"who,{columns},colour,outcome"]
    for who, number in rows:
        noise = np.random.default_rng(number)
        values = f"{40 + 10 * noise.normal():.5f},{2 + noise.normal():.5f}"
        outcome, colour = ("well", "ill", "dead")[number % 3], "red" if number % 3 else "blue"
        lines.append(f"{who},{values},{colour},{outcome}")
    path.write_text("\n".join(lines) + "\n")
    return path


def table_config(**more: Any) -> FederationConfig:
    source = {"name": "csv", "path": "somewhere.csv", "client": "who", "label": "outcome"}
    source |= {"features": ["age", "dose", "colour"], "categories": {"colour": ["blue", "red"]}}
    data = {"sources": [source], "class_names": ["dead", "ill", "well"], **more}
    return tiny_config(partition={"kind": "natural"}, data=data, model={"encoder": "auto"})


def series_config(**more: Any) -> FederationConfig:
    data = {"sources": [{"name": "npz", "path": "x.npz"}], "classes": 3, **more}
    return tiny_config(partition={"kind": "auto"}, data=data, model={"encoder": "auto"})


def same(a: Dataset | None, b: Dataset | None) -> None:
    assert (a is None) == (b is None)
    if a is not None and b is not None:
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
        assert a.classes == b.classes
        assert a.columns == b.columns
        assert (a.class_names, a.name) == (b.class_names, b.name)


def same_clients(here: Mapping[str, ClientData], run: list[ClientData]) -> None:
    assert sorted(here) == [client.name for client in run]
    for client in run:
        own = here[client.name]
        assert own.id == client.id
        for part in ("train", "validation", "test"):
            same(getattr(own, part), getattr(client, part))
        assert (own.sketched is None) == (client.sketched is None)
        if own.sketched is not None and client.sketched is not None:
            assert torch.equal(own.sketched.x, client.sketched.x)


ROWS = [(person, 100 * place + n) for place, person in enumerate(PEOPLE) for n in range(30 + place)]


def of_site(site: str) -> list[tuple[str, int]]:
    return [(who, 7919 * SITES.index(site) + number) for who, number in ROWS]


@pytest.mark.parametrize(
    "more",
    [
        {"validation_fraction": 0.2},
        {"test_limit": 3, "labelled_clients": 0.5},
        {"column_means": [40.0, 2.0, 0.5, 0.5], "column_deviations": [10.0, 1.0, 1.0, 1.0]},
    ],
)
def test_clients_of_a_table_are_those_of_one_run(tmp_path: Path, more: dict[str, Any]) -> None:
    config = table_config(**more)
    rows = [(f"{site}.{who}", number) for site in SITES for who, number in of_site(site)]
    whole = write_table(tmp_path / "whole.csv", rows)
    joint = config.model_dump(mode="json")
    joint["data"]["sources"][0]["path"] = str(whole)
    run = Federation(joint)
    plan, found = plan_of(config, run.factory.facts.shape, run.factory.facts.classes), {}
    for site in SITES:
        path = write_table(tmp_path / f"{site}.csv", of_site(site))
        own = settings(site, path, name="csv", label="outcome")
        found |= plan_clients(own, tmp_path, plan, [f"{site}.{who}" for who in PEOPLE])
    same_clients(found, run.clients)


def write_series(path: Path, clients: list[tuple[str, int]]) -> Path:
    noise = [np.random.default_rng(number) for _, number in clients]
    x = np.stack([one.normal(3, 2, (2, 16)).astype(np.float32) for one in noise])
    y, who = [number % 3 for _, number in clients], [who for who, _ in clients]
    np.savez(path, x=x, y=np.asarray(y), who=np.asarray(who), group=[n // 2 for _, n in clients])
    return path


def test_clients_of_series_are_those_of_one_run(tmp_path: Path) -> None:
    config = series_config(validation_fraction=0.1)
    rows = [(f"{site}.{who}", number) for site in SITES for who, number in of_site(site)]
    joint = config.model_dump(mode="json")
    source = {"path": str(write_series(tmp_path / "whole.npz", rows)), "client": "who"}
    joint["data"]["sources"][0] |= source
    run = Federation(joint)
    plan, found = plan_of(config, run.factory.facts.shape, 3), {}
    for site in SITES:
        path = write_series(tmp_path / f"{site}.npz", of_site(site))
        names = [f"{site}.{who}" for who in PEOPLE]
        found |= plan_clients(settings(site, path, name="npz"), tmp_path, plan, names)
    same_clients(found, run.clients)


def test_one_client_for_all_and_paths_beside_the_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "own.npz", of_site("north"))
    source = {"name": "npz", "path": "own.npz", "client": "who"}
    one = SiteSettings(name="north", client="north.a-1", data={"sources": [source]})
    own = own_examples(one, tmp_path, series_config(), 3)
    assert {name: len(data) for name, data in own.items()} == {"north.a-1": len(ROWS)}
    assert shape_of(own) == ((2, 16), 3)
    plan = plan_of(series_config(), (2, 16), 3)
    assert list(plan_clients(one, tmp_path, plan, ["north.a-1"])) == ["north.a-1"]


def refused(tmp_path: Path, config: FederationConfig, **source: Any) -> DeploymentError:
    path = write_table(tmp_path / "t.csv", of_site("north"))
    own = settings("north", path, name="csv", label="outcome", **source)
    with pytest.raises(DeploymentError) as caught:
        plan_clients(own, tmp_path, plan_of(config, (4,), 3), ["north.a-1"])
    return caught.value


def test_what_only_all_clients_would_tell_is_refused(tmp_path: Path) -> None:
    source = table_config().data.sources[0]

    def with_source(**update: Any) -> FederationConfig:
        changed = source.model_copy(update=update).model_dump(mode="json")
        return table_config(sources=[changed])

    assert refused(tmp_path, table_config(class_names=None)).field == "data.class_names"
    assert refused(tmp_path, with_source(features=None)).field == "data.sources.features"
    assert refused(tmp_path, with_source(categories=None)).field == "data.sources.categories"
    dealt = table_config().model_dump(mode="json") | {"partition": {"kind": "iid", "clients": 6}}
    assert refused(tmp_path, FederationConfig(**dealt)).field == "partition.kind"


def test_data_of_another_form_are_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", of_site("north"))
    own = settings("north", path, name="csv", label="outcome")
    plan = plan_of(table_config(), (5,), 3)
    with pytest.raises(DeploymentError, match=r"of shape \(5,\)") as caught:
        plan_clients(own, tmp_path, plan, ["north.a-1"])
    assert caught.value.value == (4,)
    with pytest.raises(DeploymentError, match="no examples of this client"):
        plan_clients(own, tmp_path, plan_of(table_config(), (4,), 3), ["north.d-4"])
    other = table_config(class_names=["dead", "ill", "cured"])
    with pytest.raises(DataError, match="labels outside"):
        plan_clients(own, tmp_path, plan_of(other, (4,), 3), ["north.a-1"])


def test_a_client_with_too_few_examples_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [("a-1", 1), ("a-1", 2), *of_site("north")[60:]])
    own = settings("north", path, name="csv", label="outcome")
    with pytest.raises(PartitionError, match="too few"):
        plan_clients(own, tmp_path, plan_of(table_config(), (4,), 3), ["north.a-1"])


def test_names_of_clients_are_plain_and_no_other_is_shown() -> None:
    assert party_name("north", "person-01") == "north.person-01"
    with pytest.raises(DeploymentError) as caught:
        party_name("north", "Jane Doe")
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "word"), [({"name": "digits"}, "no site's own"), ({"limit": 5}, "all examples")]
)
def test_sources_that_are_nobodys_own_are_refused(source: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        SiteSettings(name="north", data={"sources": [{"name": "npz", "path": "x.npz", **source}]})


def test_the_file_of_settings_reads_back() -> None:
    source = {"name": "csv", "path": "x.csv", "label": "outcome", "client": "who"}
    made = SiteSettings(name="north", data={"sources": [source]}, log={"json_lines": True})
    assert made.text().count("#") > 10
    with pytest.raises(ConfigError, match="without data"):
        SiteSettings(name="north")
    with pytest.raises(ConfigError, match="no examples"):
        SiteSettings(name="north", role="authority", data={"sources": [source]})


def test_a_group_with_two_clients_is_refused(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(8, 2, 16)).astype(np.float32)
    who, group = ["a-1"] * 4 + ["b-2"] * 4, [0, 1, 2, 3, 3, 4, 5, 6]
    np.savez(tmp_path / "g.npz", x=x, who=np.asarray(who), group=group)
    with pytest.raises(PartitionError, match="two clients"):
        own_examples(settings("north", tmp_path / "g.npz", name="npz"), tmp_path, series_config())
