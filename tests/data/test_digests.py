"""Data are known by content: however a set is stored, one example that two sets share is found, and
nothing else is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images, tiny_config
from torch import Tensor

from secure_fl import Dataset, Federation
from secure_fl.config import DataConfig, SourceConfig
from secure_fl.data.digests import content_digests, whole_digest
from secure_fl.data.sources import load_source
from secure_fl.errors import PrivacyError, RunFolderError
from secure_fl.federation.whole_run.central import CentralSet

SALT = b"salt"
EXAMPLE = {"unit": "example", "noise": 20.0, "epsilon": 60.0}


def shared(first: Dataset, second: Dataset) -> int:
    return len(content_digests(first, SALT) & content_digests(second, SALT))


def bytes_of(x: Tensor) -> Tensor:
    return (x * 255).round().to(torch.uint8)


FORMS: dict[str, Any] = {
    "the same": lambda x: x,
    "other order": lambda x: x.flip(0),
    "a part": lambda x: x[7:9],
    "float64": lambda x: x.double(),
    "numpy": lambda x: x.numpy(),
    "bytes": bytes_of,
    "not divided by 255": lambda x: bytes_of(x).float(),
    "another scale": lambda x: 3 * x - 1,
    "standardised": lambda x: (
        (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True, correction=0)
    ),
    "without its channel": lambda x: x.flatten(2),
    "as vectors": lambda x: x.flatten(1),
    "other labels": lambda x: x,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_set_is_known_in_every_form(form: str) -> None:
    x = (
        bytes_of(torch.rand(20, 1, 12, 12, generator=torch.Generator().manual_seed(0))).float()
        / 255
    )
    other = Dataset.from_arrays(FORMS[form](x), torch.ones(len(FORMS[form](x)), dtype=torch.int64))
    assert shared(Dataset.from_arrays(x), other) >= len(other)


def test_channels_may_have_scales_of_their_own() -> None:
    x = torch.randn(10, 3, 50, generator=torch.Generator().manual_seed(0))
    raw = Dataset.from_arrays(
        x * torch.tensor([1.0, 20.0, 0.1])[:, None] + torch.tensor([0.0, 5.0, -3.0])[:, None]
    )
    assert shared(raw, Dataset.from_arrays(x)) == 10


def test_one_shared_example_is_enough_and_none_is_none() -> None:
    first, second = make_images(60), make_images(60, seed=1)
    assert shared(first, second) == 0
    one = Dataset.from_arrays(torch.cat([second.x[:30], first.x[11:12], second.x[30:]]))
    assert shared(first, one) == 2, "as it was loaded, and standardised"


def test_halves_of_a_real_set_share_nothing() -> None:
    digits, _ = load_source(SourceConfig(), DataConfig(), 0)
    order = torch.arange(len(digits))
    assert shared(digits.take(order[::2]), digits.take(order[1::2])) == 0


@pytest.mark.parametrize("width", [2, 9])
def test_small_examples_are_told_apart_by_their_exact_values(width: int) -> None:
    """Two numbers less their mean, over their deviation, are always -1 and 1."""
    x = torch.rand(400, width, generator=torch.Generator().manual_seed(0))
    assert shared(Dataset.from_arrays(x[:200]), Dataset.from_arrays(x[200:])) == 0
    assert shared(Dataset.from_arrays(x[:200]), Dataset.from_arrays(x[199:])) == 1


def test_blank_examples_of_another_brightness_are_others() -> None:
    blank = [Dataset.from_arrays(torch.full((1, 1, 8, 8), value)) for value in (0.25, 0.5, 0.25)]
    assert shared(blank[0], blank[1]) == 0
    assert shared(blank[0], blank[2]) == 1
    assert (
        shared(
            Dataset.from_arrays(torch.zeros(1, 1, 8, 8)),
            Dataset.from_arrays(-torch.zeros(1, 1, 8, 8)),
        )
        == 1
    )


def test_digests_of_two_salts_do_not_compare() -> None:
    images = make_images(30)
    assert not content_digests(images, b"a") & content_digests(images, b"b")
    assert whole_digest([images]) != whole_digest([images.take(torch.arange(29))])


# In runs


def file_of(images: Dataset, path: Path) -> str:
    np.savez(path, x=images.x.numpy(), y=images.y.numpy())
    return str(path)


def central(path: str, **source: Any) -> dict[str, Any]:
    return {"mode": "centralized", "rounds": 1, "source": {"name": "npz", "path": path, **source}}


def aliases(folder: Path, images: Dataset) -> list[dict[str, Any]]:
    """Descriptions of the clients' file that do not look like it."""
    path = file_of(images, folder / "a.npz")
    (folder / "link.npz").symlink_to(path)
    (folder / "copy.npz").write_bytes(Path(path).read_bytes())
    np.savez_compressed(folder / "bytes.npz", x=bytes_of(images.x).numpy()[::-1, 0])
    np.savez(folder / "one.npz", x=torch.cat([make_images(50, seed=8).x, images.x[3:4]]).numpy())
    tables = [
        central(path),
        central(f"{folder}/./a.npz"),
        central(path, limit=7),
        central(path, kind="image"),
    ]
    tables += [central(str(folder / name)) for name in ("link.npz", "copy.npz", "one.npz")]
    return [*tables, central(str(folder / "bytes.npz"), kind="image")]


@pytest.mark.parametrize("unit", ["example", "client"])
def test_the_clients_examples_are_no_public_set_under_any_name(tmp_path: Path, unit: str) -> None:
    images = Dataset.from_arrays(bytes_of(make_images(120).x), make_images(120).y, classes=3)
    for table in aliases(tmp_path, images):
        config = tiny_config(
            pretrain=table, privacy={**EXAMPLE, "unit": unit}, pools={"start": "pretrained"}
        )
        with pytest.raises(PrivacyError, match="examples of the clients") as caught:
            Federation(config, data=images)
        assert not {"120", "240", "3", "4", "1"} & set(str(caught.value).split())


def test_an_alias_that_is_looked_up_by_its_path_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault itself: without the check every alias is trained on in the clear."""
    monkeypatch.setattr(CentralSet, "check", lambda self, held: None)
    images = make_images(120)
    for table in aliases(tmp_path, images):
        Federation(tiny_config(pretrain=table, privacy=EXAMPLE), data=images)


def test_rotated_clients_and_official_tests_are_compared_as_they_were_loaded(
    tmp_path: Path,
) -> None:
    images = make_images(120)
    path = file_of(images, tmp_path / "a.npz")
    config = tiny_config(
        pretrain=central(path, limit=5), privacy=EXAMPLE, partition={"clients": 4, "groups": 4}
    )
    with pytest.raises(PrivacyError, match="examples of the clients"):
        Federation(config, data=images)


def test_other_examples_and_open_runs_are_free(tmp_path: Path, images: Dataset) -> None:
    apart = central(file_of(make_images(60, seed=5), tmp_path / "apart.npz"))
    assert (
        Federation(tiny_config(pretrain=apart, privacy=EXAMPLE), data=images)
        .run()
        .summary.privacy.epsilon
        > 0
    )
    Federation(tiny_config(pretrain=central(file_of(images, tmp_path / "own.npz"))), data=images)


def test_an_encoder_from_a_set_with_the_clients_examples_is_no_start(
    tmp_path: Path, images: Dataset
) -> None:
    """Also where it came through a run in between; and where the record that would tell is gone."""
    few: dict[str, Any] = {"pools": {"enabled": False}, "evaluate": {"enabled": False}}
    strangers = make_images(120, seed=6)
    table = central(file_of(images, tmp_path / "own.npz"), limit=20)
    Federation(tiny_config(**few, pretrain=table), data=strangers).run(tmp_path / "first")

    def loading(folder: str) -> dict[str, Any]:
        return {"mode": "load", "load_from": str(tmp_path / folder)}

    def load(folder: str, data: Dataset, out: Path | None = None) -> None:
        config = tiny_config(
            pretrain=loading(folder),
            privacy=EXAMPLE,
            pools={"rounds": 2, "local_epochs": 1},
            evaluate={"enabled": False},
        )
        Federation(config, data=data).run(out)

    with pytest.raises(PrivacyError, match="examples of the clients"):
        load("first", images, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    load("first", strangers, tmp_path / "second")
    with pytest.raises(PrivacyError, match="examples of the clients"):
        load("second", images)
    load("second", make_images(120, seed=7))
    for damage in ("{}", '{"salt": "zz", "digests": []}', '{"salt": "00", "digests": "abc"}', "["):
        (tmp_path / "second" / "central.json").write_text(damage)
        with pytest.raises(RunFolderError):
            load("second", strangers)
    (tmp_path / "second" / "central.json").unlink()
    with pytest.raises(RunFolderError, match="does not say which examples"):
        load("second", strangers)
