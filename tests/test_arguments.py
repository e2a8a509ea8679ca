"""What callers pass wrongly to `Federation` is refused by name, before a run folder is begun, and
without showing how many examples there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_images, tiny_config
from torch import Tensor, nn

from secure_fl import (
    Callback,
    Dataset,
    Federation,
    FederationConfig,
    assign_pool,
    load_config,
    load_encoder,
    load_pools,
    load_result,
)
from secure_fl.arguments import as_config
from secure_fl.config_file import dump_config
from secure_fl.data import GlyphViews
from secure_fl.errors import ConfigError, ModelError, SecureFLError
from secure_fl.export import export, load_exported

ROWS = 240


def flat(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *layers)


class Returns(nn.Module):
    """An encoder that makes something else of its features, perhaps in one mode only."""

    def __init__(self, make: Callable[[Tensor], Any], mode: str = "both") -> None:
        super().__init__()
        self.net, self.make, self.mode = flat(), make, mode

    def forward(self, x: Tensor) -> Any:
        h = self.net(x)
        return h if self.mode == ("eval" if self.training else "train") else self.make(h)


def raising(_: object) -> Any:
    raise ValueError(f"a batch of {ROWS}")


ENCODERS = {
    "a number": 5,
    "text": "resnet",
    "a class": nn.Flatten,
    "a function without a module": lambda seed: "module",
    "a function that raises": raising,
    "a function without arguments": lambda: flat(),
    "raises": Returns(raising),
    "raises when trained": Returns(raising, "train"),
    "a tuple": Returns(lambda h: (h, h)),
    "a tuple when trained": Returns(lambda h: (h, h), "train"),
    "one row for all": Returns(lambda h: h.mean(0, keepdim=True)),
    "three axes": Returns(lambda h: h[:, None]),
    "integers": Returns(lambda h: h.long()),
    "no gradient": Returns(lambda h: h.detach()),
    "another width": nn.Sequential(nn.Flatten(), nn.Linear(63, 16)),
}


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS.keys())
def test_encoders_that_are_none(images: Dataset, encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        Federation(tiny_config(), data=images, encoder=encoder).run(tmp_path / "run")
    assert caught.value.field == "encoder"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "encoder", [flat(), flat(nn.BatchNorm1d(16)), lambda seed: flat(nn.Dropout())]
)
def test_encoders_that_are_one(images: Dataset, encoder: Any) -> None:
    before = torch.random.get_rng_state()
    Federation(tiny_config(), data=images, encoder=encoder)
    if isinstance(encoder, nn.Module):  # a function may draw what it likes
        assert torch.equal(before, torch.random.get_rng_state())


AUGMENTATIONS = {
    "a number": 5,
    "a class": GlyphViews,
    "raises": raising,
    "raises on large batches": lambda x: raising(x) if len(x) > 7 else x,
    "raises in torch": lambda x: x @ torch.ones(3, 3),
    "nothing": lambda x: None,
    "a list": lambda x: [x],
    "another shape": lambda x: x[..., :-1],
    "fewer rows": lambda x: x[:1],
    "fewer rows of large batches": lambda x: x[:7],
    "another type": lambda x: x.double(),
    "no arguments": lambda: 1,
}


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS.keys())
def test_augmentations_that_are_none(
    images: Dataset, augment: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ConfigError) as caught:
        Federation(tiny_config(), data=images, augment=augment).run(tmp_path / "run")
    assert caught.value.field == "augment"
    if "large" not in request.node.callspec.id:
        assert not (tmp_path / "run").exists()
    shown = (
        re.sub(r"line \d+", "", str(caught.value)).replace("(1, 8, 8)", "").replace("(1, 8, 7)", "")
    )
    assert not re.search(
        r"\d", shown.replace("float32", "").replace("float64", "").replace("'5'", "")
    )
    assert caught.value.__cause__ is None


class Keyed:
    """An augmentation that is given its coins, and forgets a row."""

    def changed(self, x: Tensor, draws: Any) -> Tensor:
        return x[1:]


def test_keyed_augmentations_are_tried_too(images: Dataset) -> None:
    with pytest.raises(ConfigError, match="another number of rows"):
        Federation(tiny_config(), data=images, augment=Keyed())


def test_an_augmentation_that_nothing_uses_is_not_called(images: Dataset) -> None:
    tables = {"pretrain": {"mode": "none"}, "evaluate": {"enabled": False}}
    Federation(tiny_config(**tables), data=images, augment=raising)


@pytest.mark.parametrize(
    "callbacks",
    [5, "bar", [5], [None], Callback, [Callback], {"a": Callback()}, [lambda record: None]],
)
def test_callbacks_that_are_none(images: Dataset, callbacks: Any) -> None:
    with pytest.raises(ConfigError, match="callback"):
        Federation(tiny_config(), data=images, callbacks=callbacks)


def test_a_single_callback_may_come_by_itself(images: Dataset) -> None:
    ended = []

    class Ear(Callback):
        def on_end(self, result: Any) -> None:
            ended.append(result)

    assert Federation(tiny_config(), data=images, callbacks=Ear()).run() is ended[0]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"out": 5}, "out"),
        ({"out": b"run"}, "out"),
        ({"out": ""}, "out"),
        ({"out": "a\0b"}, "out"),
        ({"out": ["run"]}, "out"),
        ({"resume": True}, "out"),
        ({"resume": "yes"}, "resume"),
        ({"progress": "bar"}, "progress"),
        ({"progress": 1}, "progress"),
    ],
)
def test_what_run_takes(images: Dataset, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Federation(tiny_config(), data=images).run(**arguments)
    assert caught.value.field == field


@pytest.mark.parametrize("config", [5, [1], b"my.toml", {1: 2}, FederationConfig, nn.Flatten()])
def test_configurations_that_are_none(config: Any) -> None:
    with pytest.raises(ConfigError, match="is no configuration"):
        Federation(config)


def test_configurations_by_dict_and_by_path(tmp_path: Path) -> None:
    config = tiny_config(pools={"rounds": 7})
    (tmp_path / "my.toml").write_text(dump_config(config))
    assert as_config(str(tmp_path / "my.toml")) == as_config(tmp_path / "my.toml") == config
    assert as_config({"pools": {"rounds": 7}}).pools.rounds == 7
    assert as_config(None) == FederationConfig()
    with pytest.raises(ConfigError, match="unknown key"):
        as_config({"pool": {}})
    with pytest.raises(ConfigError, match="no such file"):
        as_config("absent.toml")


def test_an_encoder_that_fails_on_some_batch_of_a_run_is_named(images: Dataset) -> None:
    class Small(Returns):
        def forward(self, x: Tensor) -> Any:
            return raising(x) if len(x) > 7 else self.net(x)

    with pytest.raises(ModelError, match="raises ValueError on a batch of examples") as caught:
        Federation(tiny_config(), data=images, encoder=lambda seed: Small(lambda h: h)).run()
    assert str(ROWS) not in str(caught.value)


def test_what_a_callback_raises_is_passed_on(images: Dataset) -> None:
    class Fails(Callback):
        def on_round(self, record: Any) -> None:
            flat()(torch.ones(2, 63))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Federation(tiny_config(), data=images, encoder=flat(), callbacks=Fails()).run()


@pytest.mark.parametrize("path", [5, None, b"runs", "", "a\0b", ["runs"]])
def test_paths_that_are_none(path: Any) -> None:
    takers: list[Callable[[Any], Any]] = [
        load_result,
        load_encoder,
        load_pools,
        load_config,
        load_exported,
        lambda path: assign_pool(path, "new.npz"),
        lambda path: assign_pool("runs/absent", path),
        lambda path: export(path, "models"),
        lambda path: export("runs/absent", path),
    ]
    for take in takers:
        with pytest.raises(ConfigError, match="is no path"):
            take(path)


def test_messages_of_a_broken_encoder_say_nothing_of_the_data() -> None:
    data = make_images(173)
    with pytest.raises(SecureFLError) as caught:
        Federation(tiny_config(), data=data, encoder=nn.Sequential(nn.Flatten(), nn.Linear(63, 16)))
    assert "173" not in str(caught.value)
