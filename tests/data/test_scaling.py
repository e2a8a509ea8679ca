"""Columns of tables on one scale: whose statistics they are, what they never read, and what
they refuse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from secure_fl.config import FederationConfig
from secure_fl.config_file import dump_config, load_config
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData, partition
from secure_fl.data.scaling import FARTHEST, Scaling, column_statistics, squashed
from secure_fl.errors import ConfigError, DataError

TABLE = {"partition": {"kind": "natural"}, "security": {"protection": "plain"}}


def table(columns: int = 3, rows: int = 40, seed: int = 0) -> Dataset:
    """Two clients on scales of their own."""
    generator = torch.Generator().manual_seed(seed)
    scale, offset = torch.logspace(-2, 3, columns), torch.linspace(-50, 400, columns)
    clients = [
        (
            (torch.randn(rows, columns, generator=generator) * scale + offset) * (1 + client),
            torch.arange(rows) % 2,
        )
        for client in range(2)
    ]
    return Dataset.from_clients(clients, classes=2)


def config(**tables: dict[str, Any]) -> FederationConfig:
    return FederationConfig(**{**TABLE, **tables})


def scaled(
    examples: Dataset, **tables: dict[str, Any]
) -> tuple[list[ClientData], list[ClientData]]:
    """(as dealt, as scaled)."""
    made = config(**tables)
    dealt = partition([(examples, None)], made)
    scaling = Scaling.of(made, dealt[0].train)
    return dealt, [scaling.client(client) for client in dealt]


def test_each_client_uses_the_statistics_of_its_own_training_examples_only() -> None:
    dealt, clients = scaled(table(), data={"validation_fraction": 0.2})
    for raw, client in zip(dealt, clients, strict=True):
        means, deviations = (
            raw.train.x.numpy().astype(float).mean(0),
            raw.train.x.numpy().astype(float).std(0),
        )
        for part in ("train", "validation", "test"):
            expected = (getattr(raw, part).x.numpy() - means) / deviations
            np.testing.assert_allclose(
                getattr(client, part).x.numpy(), np.clip(expected, -FARTHEST, FARTHEST), atol=1e-5
            )
        np.testing.assert_allclose(client.train.x.std(0, correction=0).numpy(), 1, rtol=1e-5)
        assert float(client.test.x.mean(0).abs().max()) > 1e-3
        assert torch.equal(client.train.y, raw.train.y)


def test_given_numbers_serve_every_client_and_keep_what_sets_them_apart() -> None:
    data = {"column_means": [1.0, 2.0, 3.0], "column_deviations": [0.5, 10.0, 200.0]}
    dealt, clients = scaled(table(), data=data)
    for raw, client in zip(dealt, clients, strict=True):
        np.testing.assert_allclose(
            client.train.x.numpy(), (raw.train.x.numpy() - [1, 2, 3]) / [0.5, 10, 200], rtol=1e-5
        )
        assert client.sketched is None
    assert float((clients[0].train.x.mean(0) - clients[1].train.x.mean(0)).abs().max()) > 1


def test_none_and_per_example() -> None:
    dealt, clients = scaled(table(), data={"scale": "none"})
    assert all(
        torch.equal(raw.train.x, client.train.x) for raw, client in zip(dealt, clients, strict=True)
    )
    _, clients = scaled(table(), data={"scale": "per_example"})
    np.testing.assert_allclose(clients[0].train.x.mean(1).numpy(), 0, atol=1e-6)
    np.testing.assert_allclose(clients[0].test.x.std(1, correction=0).numpy(), 1, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e6 + 0.3, -7e12])
def test_constant_columns_are_shifted_and_others_are_held(value: float) -> None:
    x = torch.full((30, 2), value)
    x[:, 1] = torch.arange(30) % 2 * 1e-3
    deviations = column_statistics(x)[1]
    assert deviations[0] == 1
    assert deviations[1] == pytest.approx(5e-4)
    far = Dataset.from_arrays(torch.tensor([[value, 5.0], [value, 0.0]]))
    raw = ClientData(0, Dataset.from_arrays(x), far, far, None, "")
    made = Scaling("per_client").client(raw)
    assert made.train.x[:, 0].abs().max() == 0
    assert made.test.x[0].tolist() == [0, FARTHEST]


def test_a_column_that_varies_in_its_last_bits_is_not_constant() -> None:
    x = torch.tensor([[1e6], [1e6 + 0.0625], [1e6]])
    assert float(column_statistics(x)[1]) == pytest.approx(0.0625 * (2 / 9) ** 0.5)


def test_a_sketch_reads_each_value_by_itself() -> None:
    """One example replaced: no other is read differently, though all were standardised
    differently.
    """
    before = table()
    x = before.x.clone()
    x[int(torch.nonzero(before.client == 0)[3])] = 1e5
    after = Dataset(x, before.y, before.classes, before.client, before.name, before.declared)
    (_, one), (_, other) = scaled(before), scaled(after)
    assert one[0].sketched is not None
    assert other[0].sketched is not None
    moved = (one[0].sketched.x != other[0].sketched.x).any(1)
    assert int(moved.sum()) == 1
    assert bool((one[0].train.x != other[0].train.x).any(1).all())


def test_squashing_is_one_to_one_and_keeps_the_order() -> None:
    x = torch.tensor([[-1e30, -700.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 700.0, 3e38]])
    made = squashed(x)
    assert bool((made.diff() > 0).all())
    assert torch.isfinite(made).all()
    np.testing.assert_allclose(made[0, 4:8].numpy(), np.log1p([0, 1e-3, 1, 700]), rtol=1e-6)


def test_example_level_privacy_wants_the_numbers_given() -> None:
    private = {"privacy": {"unit": "example"}}
    with pytest.raises(
        DataError, match=r"data\.column_means.*data\.column_deviations.*data\.scale"
    ) as error:
        scaled(table(), **private)
    assert error.value.field == "data.column_means"
    with pytest.raises(ConfigError, match=r"data\.scale.*column_means"):
        config(data={"scale": "per_client"}, **private)
    given = {"column_means": [0.0, 0.0, 0.0], "column_deviations": [1.0, 1.0, 1.0]}
    for data in ({"scale": "none"}, {"scale": "per_example"}, given):
        scaled(table(), data=data, **private)


def test_no_statistics_of_a_client_under_example_level_privacy_move_anything() -> None:
    """Whatever the setting, a replaced example leaves every other row as it was."""
    given = {"column_means": [0.0, 0.0, 0.0], "column_deviations": [1.0, 10.0, 100.0]}
    before = table()
    x = before.x.clone()
    x[int(torch.nonzero(before.client == 0)[3])] = 1e5
    after = Dataset(x, before.y, before.classes, before.client, before.name, before.declared)
    for data in ({"scale": "none"}, {"scale": "per_example"}, given):
        (_, one), (_, other) = (
            scaled(each, data=data, privacy={"unit": "example"}) for each in (before, after)
        )
        for part in ("train", "test"):
            rows = [getattr(client[0], part).x for client in (one, other)]
            assert int((rows[0] != rows[1]).any(1).sum()) <= 1


def test_client_level_privacy_may_use_a_client_s_own_statistics() -> None:
    _, clients = scaled(table(), privacy={"unit": "client"})
    np.testing.assert_allclose(clients[0].train.x.mean(0).numpy(), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"scale": "given"}, "data.column_means"),
        ({"column_means": [1.0]}, "data.column_deviations"),
        ({"column_deviations": [1.0]}, "data.column_deviations"),
        ({"column_means": [1.0], "column_deviations": [1.0, 2.0]}, "data.column_deviations"),
        ({"column_means": [1.0], "column_deviations": [0.0]}, "data.column_deviations.0"),
        ({"column_means": [1.0], "column_deviations": [-1.0]}, "data.column_deviations.0"),
        ({"column_means": [float("nan")], "column_deviations": [1.0]}, "data.column_means.0"),
        ({"column_means": [1e300], "column_deviations": [1.0]}, "data.column_means.0"),
        ({"column_means": [], "column_deviations": []}, "data.column_means"),
        ({"scale": "none", "column_means": [1.0], "column_deviations": [1.0]}, "data.scale"),
        ({"scale": "per_client", "column_means": [1.0], "column_deviations": [1.0]}, "data.scale"),
    ],
)
def test_settings_that_disagree_are_refused(data: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(data=data)
    assert error.value.field == field
    assert error.value.remedy


def test_numbers_that_do_not_fit_the_data_are_refused() -> None:
    large = Dataset.from_clients([(torch.full((9, 3), 1e20), None)] * 2)
    two = {"column_means": [1.0, 2.0], "column_deviations": [1.0, 1.0]}
    with pytest.raises(DataError, match=r"data\.column_means.*2 means.*\(3,\)"):
        scaled(table(), data=two)
    with pytest.raises(DataError, match="beyond float32") as error:
        scaled(large, data={"column_means": [0.0] * 3, "column_deviations": [1e-30] * 3})
    assert "e+" not in str(error.value)
    with pytest.raises(DataError, match="single column"):
        scaled(table(1), data={"scale": "per_example"})
    images = Dataset.from_arrays(torch.rand(20, 1, 8, 8), torch.arange(20) % 2)
    for data in ({"scale": "per_client"}, {"column_means": [0.0], "column_deviations": [1.0]}):
        with pytest.raises(DataError, match="only tables have columns"):
            Scaling.of(config(data=data), images)


def test_a_sketch_of_embeddings_is_refused_where_embeddings_depend_on_all_examples() -> None:
    example = table()
    pools = {"pools": {"sketch_of": "encoder"}}
    protected = FederationConfig(**pools)
    with pytest.raises(ConfigError, match=r"pools\.sketch_of.*column_means"):
        Scaling.of(protected, example)
    assert Scaling.of(config(**pools), example).kind == "per_client"
    given = {"data": {"column_means": [0.0] * 3, "column_deviations": [1.0] * 3}}
    assert Scaling.of(FederationConfig(**pools, **given), example).kind == "given"


def test_a_single_newcomer_s_example_has_no_statistics() -> None:
    one = Dataset.from_arrays(torch.ones(1, 3))
    with pytest.raises(DataError, match="at least two"):
        Scaling("per_client").alone(one)
    assert Scaling("given", (0.0, 0.0, 0.0), (2.0, 2.0, 2.0)).alone(one).x.tolist() == [[0.5] * 3]


def test_given_numbers_survive_the_configuration_file(tmp_path: Any) -> None:
    made = config(data={"column_means": [0.1, -2.0, 3e7], "column_deviations": [0.25, 1e-3, 12]})
    (tmp_path / "run.toml").write_text(dump_config(made))
    assert load_config(tmp_path / "run.toml") == made
    changed = load_config(tmp_path / "run.toml", ["data.column_means=[1, 2, 3]"])
    assert changed.data.column_means == (1.0, 2.0, 3.0)
