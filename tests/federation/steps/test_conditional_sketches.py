"""Sketches compared by shared labels, in whole runs: clients who hold different labels are grouped
by what else sets them apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federation.parts import engine_of
from helpers import tiny_config

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.engines import embedded
from secure_fl.federation.asks import GiveSketch
from secure_fl.federation.local.sketches import ReleasedSketch
from secure_fl.pools.monitor import adjusted_rand
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource

CLIENTS, CLASSES, EACH = 12, 3, 60


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(3))


def skewed_images() -> Dataset:
    """Client i is in group i modulo 2, whose images are upside down or not, and holds nine of ten
    examples of one label, which says more of an image than the group does.
    """
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(CLIENTS).repeat_interleave(EACH) // 2 % CLASSES
    stray = torch.rand(len(label), generator=generator) < 0.3
    y = torch.where(stray, torch.randint(CLASSES, label.shape, generator=generator), label)
    x = 0.3 * torch.rand(len(y), 1, 8, 8, generator=generator)
    for one in range(CLASSES):
        x[y == one, :, 2:6, 2 * one + 1 : 2 * one + 3] += 0.7
    x[:, :, :1] += 0.5
    client = torch.arange(CLIENTS).repeat_interleave(EACH)
    x[client % 2 == 1] = x[client % 2 == 1].flip(-2)
    return Dataset.from_arrays(x, y, client=client, classes=CLASSES)


def config(sketch: str, **tables: dict[str, Any]) -> FederationConfig:
    made: dict[str, dict[str, Any]] = {
        "partition": {"kind": "natural"},
        "pretrain": {"mode": "none"},
        "pools": {"count": 2, "rounds": 2, "local_epochs": 1, "sketch": sketch},
        "evaluate": {"enabled": True},
        "security": {"protection": "plain"},
    }
    return tiny_config(
        **{name: made.get(name, {}) | tables.get(name, {}) for name in made | tables}
    )


def grouped(made: FederationConfig, folder: Path) -> float | None:
    """How well the groups in the warm-up are the true ones."""
    result = Federation(made, data=skewed_images()).run(folder)
    warm_up = next(record for record in result.records if record.phase == "cluster")
    choices = [warm_up.metrics.choices[str(i)] for i in range(CLIENTS)]
    return adjusted_rand(choices, [i % 2 for i in range(CLIENTS)])


@pytest.mark.parametrize(("sketch", "found"), [("labelled", False), ("conditional", True)])
def test_skewed_labels_hide_groups_unless_shared_labels_are_compared(
    sketch: str, found: bool, tmp_path: Path
) -> None:
    assert (grouped(config(sketch), tmp_path / "run") == 1) is found


def test_noised_ones_find_them_too_at_the_cost_of_two_releases(tmp_path: Path) -> None:
    """Under a large budget: what noise costs is measured in `bench/sketch_kinds.py`."""
    made = config(
        "conditional", security={"protection": "masked"}, privacy={"sketch_epsilon": 200.0}
    )
    assert grouped(made, tmp_path / "run") == 1
    releases = PrivacyLedger.load(tmp_path / "run" / "ledger.json").releases
    assert [each.phase for each in releases].count("sketch") == CLIENTS
    assert len(releases) == 2 * CLIENTS


def test_what_travels_of_a_sketch_in_parts_says_nothing_beside_the_release() -> None:
    """Values and weights follow from what was released: the examples are not looked at again."""
    masked = config("conditional", security={"protection": "masked"})
    made = Federation(masked, data=skewed_images())
    form, client = made.factory.sketch, engine_of(made).clients[0].sketch
    assert isinstance(client, ReleasedSketch)
    given = client.give(GiveSketch(torch.zeros(form.inputs, dtype=torch.float64)))
    assert form.weights == form.parts == CLASSES
    assert form.width == CLASSES * form.part
    assert given.shape == (form.width + form.weights + 3,)
    each = client.weights.repeat_interleave(form.part)
    torch.testing.assert_close(given[: form.width], each * client.own())
    assert torch.equal(given[form.width : -3], client.weights)
    assert float(client.weights.sum()) == pytest.approx(1.0)
    assert float(client.own().view(CLASSES, -1).norm(dim=1).max()) <= 1 + 1e-6
    assert client.released is not None
    read = client._read(client.released)
    assert all(torch.equal(a, b) for a, b in zip(read, (client.own(), client.weights), strict=True))
