"""Runs on tables: wine at its defaults, under differential privacy, what a sketch's release reads,
and newcomers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federation.parts import engine_of
from helpers import make_images, tiny_config
from sklearn.datasets import load_wine
from torch import nn

from secure_fl import Dataset, Federation, FederationConfig, run
from secure_fl.data.augmentations import TableViews
from secure_fl.data.joining import join
from secure_fl.data.pooled import pooled_values
from secure_fl.data.scaling import column_statistics, squashed
from secure_fl.engines import embedded
from secure_fl.errors import DataError, PrivacyError, RunFolderError
from secure_fl.federation.whole_run import central
from secure_fl.finished.artifacts import load_card, load_centre, load_encoder, load_pools
from secure_fl.finished.assign import assign_pool
from secure_fl.finished.result import Result
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource
from secure_fl.privacy.private_sketch import PrivateSketch

SHORT: dict[str, Any] = {
    "model": {"features": 16},
    "pretrain": {"rounds": 1, "local_epochs": 1},
    "pools": {"rounds": 2, "warmup_rounds": 1, "local_epochs": 1, "sketch_starts": 8},
    "evaluate": {"probe_epochs": 5},
}
# What is known of wine beforehand: round numbers, not this table's own.
GIVEN = {
    "column_means": [13, 2.5, 2.4, 19, 100, 2.3, 2, 0.4, 1.6, 5, 1, 2.6, 750],
    "column_deviations": [0.8, 1, 0.3, 3, 14, 0.6, 1, 0.1, 0.6, 2.3, 0.2, 0.7, 300],
}


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(5))


def wine() -> Dataset:
    bunch = load_wine()
    return Dataset.from_arrays(bunch.data, bunch.target, classes=3, name="wine")


def short(**tables: dict[str, Any]) -> FederationConfig:
    """Twelve clients, defaults but for sizes."""
    tables = {"partition": {"kind": "iid"}, **tables}
    return FederationConfig(
        **{name: {**SHORT.get(name, {}), **tables.get(name, {})} for name in SHORT | tables}
    )


def test_wine_runs_at_its_defaults_protected_and_takes_a_newcomer(tmp_path: Path) -> None:
    data = wine()
    federation = Federation(short(), data=data)
    assert isinstance(federation.factory.augment, TableViews)
    result = federation.run(tmp_path / "run")
    assert result.summary.sketches.epsilon == pytest.approx(1.0)
    assert PrivacyLedger.load(tmp_path / "run" / "ledger.json").verify().ok
    card = load_card(tmp_path / "run")
    assert (card.shape, card.scale, card.column_means, card.classes) == (
        (13,),
        "per_client",
        None,
        3,
    )
    np.savez(tmp_path / "new.npz", x=data.x.numpy(), y=data.y.numpy())
    found = assign_pool(tmp_path / "run", tmp_path / "new.npz")
    means, deviations = column_statistics(data.x)
    x = ((data.x - means) / deviations).float().clamp(-10, 10)
    for pool, row in zip(result.pools, found.scores, strict=True):
        assert row[0] == pytest.approx(
            nn.functional.cross_entropy(pool(x), data.y).item(), rel=1e-4
        )
    np.savez(tmp_path / "new.npz", x=data.x.numpy())
    found = assign_pool(tmp_path / "run", tmp_path / "new.npz")
    guide, form = load_pools(tmp_path / "run")[1], federation.factory.sketch
    assert found.by == "sketch distance"
    assert guide is not None
    own = form.plain_sketch(pooled_values(squashed(data.x)), load_centre(tmp_path / "run"))
    expected = (form.plain(guide.centres) - (own - form.plain(guide.mean))).norm(dim=1)
    assert [row[3] for row in found.scores] == pytest.approx(expected.tolist())
    np.savez(tmp_path / "one.npz", x=data.x[:1].numpy())
    with pytest.raises(DataError, match="at least two"):
        assign_pool(tmp_path / "run", tmp_path / "one.npz")


def test_wine_under_example_level_privacy_with_given_scales(tmp_path: Path) -> None:
    private = {
        "privacy": {"unit": "example", "noise": 2.0, "epsilon": 60.0},
        "pools": {"batch_size": 8},
        "pretrain": {"batch_size": 8},
    }
    with pytest.raises(DataError, match=r"data\.column_means"):
        Federation(short(**private), data=wine())
    result = Federation(short(**private, data=GIVEN), data=wine()).run(tmp_path / "run")
    assert 0 < result.summary.privacy.epsilon <= 60.0
    card = load_card(tmp_path / "run")
    assert (card.scale, card.column_means, card.column_deviations) == (
        "given",
        tuple(map(float, GIVEN["column_means"])),
        tuple(map(float, GIVEN["column_deviations"])),
    )
    data = wine()
    x = (data.x - torch.tensor(GIVEN["column_means"])) / torch.tensor(GIVEN["column_deviations"])
    np.savez(tmp_path / "new.npz", x=data.x.numpy(), y=data.y.numpy())
    for pool, row in zip(
        result.pools, assign_pool(tmp_path / "run", tmp_path / "new.npz").scores, strict=True
    ):
        assert row[0] == pytest.approx(
            nn.functional.cross_entropy(pool(x), data.y).item(), rel=1e-4
        )
    assert load_encoder(tmp_path / "run")(x[:2]).shape == (2, 16)


def test_wine_under_client_level_privacy(tmp_path: Path) -> None:
    config = short(privacy={"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3})
    result = Federation(config, data=wine()).run(tmp_path / "run")
    assert result.summary.privacy.epsilon > 0
    assert load_card(tmp_path / "run").scale == "per_client"


@pytest.mark.parametrize("columns", [1, 2])
def test_tables_of_very_few_columns_run(columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    x = 50 + torch.randn(120, columns, generator=generator) + 3 * y[:, None]
    result = Federation(
        short(partition={"kind": "iid", "clients": 4}, pools={"count": 1, "rounds": 4, "lr": 0.1}),
        data=Dataset.from_arrays(x, y),
    ).run()
    assert result.records[-1].metrics.accuracy > 0.7


def read_by_sketches(data: Dataset, config: FederationConfig) -> list[torch.Tensor]:
    """What each example of client 0 adds to the two releases of its sketch."""
    federation = Federation(config, data=data)
    sketch = engine_of(federation).clients[0].sketch
    values, form = sketch._values(sketch._train), federation.factory.sketch.released
    assert isinstance(form, PrivateSketch)
    centre = torch.ones(form.features, dtype=torch.float64) / form.features
    return [
        pooled_values(federation.clients[0].train.x),
        values,
        form.contributions(values, sketch._train.y, centre),
    ]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"column_means": [100.0, 0.0, 7.0], "column_deviations": [3.0, 1.0, 50.0]},
        {"scale": "per_example"},
    ],
)
def test_replacing_an_example_changes_no_other_s_part_of_a_sketch(given: dict[str, Any]) -> None:
    """The claim ε <= 1 for an example rests on it, also where models see what a client's own
    statistics have made.
    """
    generator = torch.Generator().manual_seed(0)
    parts = [
        (100 * torch.randn(20, 3, generator=generator), torch.arange(20) % 2) for _ in range(6)
    ]
    config = short(partition={"kind": "natural"}, data={"classes": 2, **given}, pools={"count": 2})
    before = read_by_sketches(Dataset.from_clients(parts, classes=2), config)
    other = parts[0][0].clone()
    other[6] = torch.tensor([-3e4, 8.0, 0.5])
    after = read_by_sketches(
        Dataset.from_clients([(other, parts[0][1]), *parts[1:]], classes=2), config
    )
    moved = [int((one != two).any(1).sum()) for one, two in zip(before, after, strict=True)]
    assert moved[1:] == [1, 1]
    assert moved[0] == (len(before[0]) if not given else 1)
    assert float(after[2].double().norm(dim=1).max()) <= 2**20


def test_a_central_set_of_tables_is_scaled_by_itself_and_still_known_by_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Digests are of the values as they came: an example that the clients share is found, though
    they and the server scaled it otherwise.
    """
    data, rows = wine(), torch.randperm(178, generator=torch.Generator().manual_seed(0))
    clients, server = data.take(rows[:120]), data.take(rows[120:])
    config = short(
        partition={"kind": "iid", "clients": 6},
        privacy={"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3},
        pretrain={"mode": "centralized", "source": {"name": "digits"}},
        pools={"count": 2},
    )
    monkeypatch.setattr(central, "load_source", lambda *_: (server, None))
    trained: list[torch.Tensor] = []
    monkeypatch.setattr(
        run, "Prologue", lambda _factory, examples, _load: trained.append(examples.x) or _Stop()
    )
    federation = Federation(config, data=clients)
    with pytest.raises(KeyboardInterrupt):
        federation.run()
    np.testing.assert_allclose(trained[0].mean(0).numpy(), 0, atol=1e-5)
    monkeypatch.setattr(
        central,
        "load_source",
        lambda *_: (join([server, clients.take(torch.tensor([7]))], "both"), None),
    )
    with pytest.raises(PrivacyError, match="holds examples of the clients"):
        Federation(config, data=clients)


class _Stop:
    """A prologue that ends the run before it begins."""

    def initial(self) -> None:
        raise KeyboardInterrupt


def test_a_card_whose_numbers_do_not_fit_its_columns_is_damaged(tmp_path: Path) -> None:
    Federation(short(data=GIVEN, pools={"enabled": False}), data=wine()).run(tmp_path / "run")
    file = tmp_path / "run" / "model" / "model.json"
    card = json.loads(file.read_text())
    for broken in (
        {"column_means": None},
        {"column_deviations": [1.0]},
        {"column_deviations": [0.0] * 13},
        {"column_means": ["a"] * 13},
    ):
        file.write_text(json.dumps(card | broken))
        with pytest.raises(RunFolderError, match=r"model\.json"):
            load_card(tmp_path / "run")


def test_cards_from_before_tables_are_read(tmp_path: Path) -> None:
    Federation(tiny_config(pools={"enabled": False}), data=make_images(80)).run(tmp_path / "run")
    file = tmp_path / "run" / "model" / "model.json"
    card = {
        name: value
        for name, value in json.loads(file.read_text()).items()
        if not name.startswith("column_")
    }
    file.write_text(json.dumps(card))
    assert load_card(tmp_path / "run").scaling.kind == "none"


def test_a_client_s_single_row_is_scaled_by_its_own_statistics(tmp_path: Path) -> None:
    """Predictions of a row do not depend on who else is asked about, in memory and from
    the folder.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(240, 3, generator=generator) * torch.tensor([1.0, 50.0, 0.1])
    rows += torch.tensor([0.0, 900.0, 3.0])
    labels = torch.arange(240) % 2
    rows[:, 0] += 3 * labels
    data = Dataset.from_arrays(rows, labels, client=[f"site {i % 6}" for i in range(240)])
    tables = {
        "pretrain": {"mode": "none"},
        "pools": {"count": 1, "rounds": 3},
        "evaluate": {"probe_epochs": 0},
        "security": {"protection": "plain"},
    }
    made = Federation(FederationConfig(**tables), data=data).run(tmp_path / "run")
    mine = rows[3::6]
    for result in (made, Result.load(tmp_path / "run")):
        together = result.predict_proba(mine, "site 3")
        assert torch.allclose(result.predict_proba(mine[:1], "site 3"), together[:1], atol=1e-5)
        assert not torch.allclose(
            result.embed(mine[:1], "site 3"), result.embed(mine[:1] + 1, "site 3")
        )
    with pytest.raises(DataError, match="one example has no statistics"):
        made.predict(mine[:1])
