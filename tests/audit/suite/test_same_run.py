"""An audit of a run whose examples or encoder are not at hand is no audit of that run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from audit.suite import toys
from helpers import tiny_config
from torch import nn

from secure_fl import Dataset, Federation
from secure_fl.audit.subject import Subject
from secure_fl.errors import AuditError


@pytest.fixture
def run(tmp_path: Path, images: Dataset) -> Path:
    """A run of examples that were given from Python."""
    Federation(toys.quick(), data=images).run(tmp_path / "run", progress=False)
    return tmp_path / "run"


def test_examples_that_were_given_must_be_given_again(run: Path, images: Dataset) -> None:
    assert Subject.of(run, data=images).clients
    with pytest.raises(AuditError, match=r"are not those that the run had.*data=") as caught:
        _ = Subject.of(run).clients
    assert caught.value.field == "examples"


def test_one_example_that_changed_is_seen(run: Path, images: Dataset) -> None:
    x = images.x.clone()
    x[5] = 1 - x[5]
    with pytest.raises(AuditError, match="are not those that the run had"):
        _ = Subject.of(run, data=replace(images, x=x)).factory


def test_without_a_digest_the_form_must_fit(tmp_path: Path, images: Dataset) -> None:
    silent = tiny_config(
        pretrain={"rounds": 1}, pools={"enabled": False}, evaluate={"enabled": False}
    )
    Federation(silent, data=images).run(tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "partition.json").exists()
    with pytest.raises(AuditError, match="than the run's"):
        _ = Subject.of(tmp_path / "run").clients


def test_an_encoder_of_the_callers_must_be_given_again(tmp_path: Path, images: Dataset) -> None:
    size = images.x[0].numel()
    made = nn.Sequential(nn.Flatten(), nn.Linear(size, 8), nn.ReLU())
    Federation(toys.quick(), data=images, encoder=made).run(tmp_path / "run", progress=False)
    with pytest.raises(AuditError, match="one of its caller's own"):
        _ = Subject.of(tmp_path / "run", data=images).factory
    assert Subject.of(tmp_path / "run", data=images, encoder=made).factory


def test_an_encoder_too_many_is_refused(run: Path, images: Dataset) -> None:
    with pytest.raises(AuditError, match="none of its caller's own"):
        _ = Subject.of(run, data=images, encoder=nn.Flatten()).factory
