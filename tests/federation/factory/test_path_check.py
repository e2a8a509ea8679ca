"""A run that would tie examples together is refused before anybody is charged or asked, whatever
kind of release would have been the first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_images, tiny_config, weights
from torch import Tensor, nn
from torch.nn import functional

from secure_fl import Dataset, Federation, run
from secure_fl.data.views import Augmentation
from secure_fl.engines import embedded
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.errors import PrivacyError
from secure_fl.federation.factory.example_plan import plan_examples
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource

EXAMPLE = {"unit": "example", "noise": 20.0, "epsilon": 60.0}
SKETCH: dict[str, Any] = {
    "pretrain": {"mode": "none"},
    "pools": {"encoder": "frozen", "start": "sketch", "sketch": "features"},
}
CHOICE: dict[str, Any] = {"pretrain": {"mode": "none"}, "pools": {"start": "random"}}
PRETRAIN: dict[str, Any] = {"pools": {"enabled": False}}


class Encoder(nn.Module):
    """A linear encoder of 8×8 images and what a careless author puts behind it."""

    def __init__(self, then: Callable[[Encoder, Tensor], Tensor]) -> None:
        super().__init__()
        self.flat, self.linear, self.then = nn.Flatten(), nn.Linear(64, 16), then
        self.register_buffer("seen", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, self.linear(self.flat(x)))


def standardised(_: Encoder, h: Tensor) -> Tensor:
    return (h - h.mean(0)) / (h.std(0, correction=0) + 1e-3)


def standardised_in_eval(encoder: Encoder, h: Tensor) -> Tensor:
    return h if encoder.training else standardised(encoder, h)


def standardised_in_large_batches(encoder: Encoder, h: Tensor) -> Tensor:
    return standardised(encoder, h) if len(h) > 20 else h


def noting(encoder: Encoder, h: Tensor) -> Tensor:
    if encoder.training and torch.is_grad_enabled():
        encoder.seen.lerp_(h.detach().mean(0), 1.0)
    return h


def mixup(x: Tensor) -> Tensor:
    return 0.6 * x + 0.4 * x[torch.randperm(len(x))]


REFUSED: dict[
    str, tuple[dict[str, Any], Callable[[Encoder, Tensor], Tensor] | None, Augmentation | None]
] = {
    "augmentation": (PRETRAIN, None, mixup),
    "pre-training": (
        PRETRAIN,
        lambda _, h: h - torch.cat([0 * h[:1], h.cumsum(0)[:-1]]) / 40,
        None,
    ),
    "pre-training, a buffer": (PRETRAIN, noting, None),
    "pre-training, coins": (
        PRETRAIN,
        lambda encoder, h: functional.dropout(h, 0.5, encoder.training),
        None,
    ),
    "pre-training, large batches": (PRETRAIN, standardised_in_large_batches, None),
    "sketch": (SKETCH, standardised, None),
    "sketch, in eval mode": (SKETCH, standardised_in_eval, None),
    "sketch, large batches": (SKETCH, standardised_in_large_batches, None),
    "choice": (CHOICE, standardised_in_eval, None),
}


def federation(name: str, images: Dataset) -> Federation:
    tables, then, augment = REFUSED[name]
    encoder = None if then is None else Encoder(then)
    return Federation(
        tiny_config(privacy=EXAMPLE, **tables), data=images, encoder=encoder, augment=augment
    )


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_anybody_is_charged(
    name: str, images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("asked what it would release")

    monkeypatch.setattr(EmbeddedEngine, "releases", never)
    with pytest.raises(PrivacyError):
        federation(name, images).run(tmp_path / "run")
    ledger = tmp_path / "run" / "ledger.json"
    assert not ledger.exists() or not PrivacyLedger.load(ledger).releases


def standardised_in_the_largest_batches(encoder: Encoder, h: Tensor) -> Tensor:
    return standardised(encoder, h) if len(h) > 150 else h


@pytest.mark.parametrize("first", ["training", "sketch"])
def test_batches_as_large_as_the_run_s_own_are_tried(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("asked what it would release")

    monkeypatch.setattr(EmbeddedEngine, "releases", never)
    encoder: dict[str, Any] = {**SKETCH, "pools": {**SKETCH["pools"], "sketch_of": "encoder"}}
    tables = encoder if first == "sketch" else {**PRETRAIN, "pretrain": {"batch_size": 128}}
    config = tiny_config(privacy=EXAMPLE, **tables)
    with pytest.raises(PrivacyError, match="other rows"):
        Federation(
            config, data=make_images(1000), encoder=Encoder(standardised_in_the_largest_batches)
        ).run()


def test_without_the_check_a_sketch_of_a_batch_would_be_charged_and_made(
    images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: the second look of the client itself comes after the charge."""
    monkeypatch.setattr(run, "check_paths", lambda *_: None)
    with pytest.raises(PrivacyError, match="other rows"):
        federation("sketch", images).run(tmp_path / "run")
    assert PrivacyLedger.load(tmp_path / "run" / "ledger.json").releases


def test_what_a_model_makes_once_it_makes_of_no_client_s_examples(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients score pools on their test examples before they train: initialisation by these would
    be in the released models, without noise.
    """

    def centred_once(encoder: Encoder, h: Tensor) -> Tensor:
        encoder.first = getattr(encoder, "first", h.detach().mean(0))  # type: ignore[assignment]
        return h - encoder.first

    ended = []
    for value in (0.0, 1.0):
        monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))
        config = tiny_config(
            privacy=EXAMPLE,
            pretrain={"mode": "none"},
            pools={"start": "sketch"},
            evaluate={"enabled": False},
        )
        made = Federation(config, data=images, encoder=Encoder(centred_once))
        for client in made.clients:
            client.test.x[:] = value
        ended.append(weights(made.run()))
    assert torch.equal(*ended)


def test_dropout_and_frozen_batch_statistics_are_let_through(images: Dataset) -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.2), nn.ReLU())
    result = Federation(
        tiny_config(privacy=EXAMPLE, **PRETRAIN), data=images, encoder=encoder
    ).run()
    assert result.summary.privacy.epsilon > 0
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16))
    result = Federation(tiny_config(privacy=EXAMPLE, **SKETCH), data=images, encoder=frozen).run()
    assert result.summary.privacy.epsilon > 0


def test_a_run_without_examples_to_protect_may_mix_them(images: Dataset) -> None:
    """Client level bounds the whole update, whatever the loss."""
    client = {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3}
    Federation(tiny_config(privacy=client, **PRETRAIN), data=images, augment=mixup).run()
    Federation(tiny_config(**PRETRAIN), data=images, augment=mixup).run()


@pytest.mark.parametrize("objective", ["align_uniform", "masked", "nt_xent"])
def test_what_is_charged_is_what_was_planned(
    objective: str, images: Dataset, tmp_path: Path
) -> None:
    """A plan is made of the mechanisms' own events, at another noise; the charge is asked of the
    mechanisms that run.
    """
    mechanism = "group" if objective == "nt_xent" else "auto"
    config = tiny_config(
        privacy={"unit": "example", "epsilon": 8.0, "mechanism": mechanism},
        **PRETRAIN,
        objective={"name": objective},
    )
    whole = Federation(config, data=images)
    client = whole.clients[0].train
    planned = plan_examples(whole.factory, len(client), len(client)).events()
    whole.run(tmp_path / "run")
    ledger = PrivacyLedger.load(tmp_path / "run" / "ledger.json")
    charged = [release.event for release in ledger.releases if 0 in release.subjects]
    assert epsilon(charged, 1e-5, Adjacency.ZERO_OUT) == pytest.approx(
        epsilon(planned, 1e-5, Adjacency.ZERO_OUT), rel=1e-9
    )
