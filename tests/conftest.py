"""What every test starts from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from helpers import make_images
from hypothesis import settings

from secure_fl import run
from secure_fl.data.dataset import Dataset
from secure_fl.federation.factory.factory import Factory

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
"""The same examples in every run: a failure in CI is one that everybody can see."""


@pytest.fixture(autouse=True, scope="session")
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs, also those of processes that tests start, keep their keys away from the user's own, and
    run the tiles that all run. Nobody pulls the plug, so no test waits for its disk.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECURE_FL_TILES", "shipped")
        patch.setenv("SECURE_FL_STATE", str(tmp_path_factory.mktemp("state")))
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _paths_are_checked_once() -> Iterator[None]:
    """A run's paths take half a second to check: those of equal settings and none of a caller's own
    code are checked the first time only.
    """
    honest, checked = run.check_paths, set[tuple[object, ...]]()

    def check(factory: Factory, most: int) -> None:
        facts, augment = factory.facts, type(factory.augment)
        own = isinstance(factory.make_encoder, partial) or "secure_fl" not in augment.__module__
        key = facts.config.model_dump_json(exclude={"name"}), facts.shape, facts.classes, most
        if own or key not in checked:
            honest(factory, most)
        if not own:
            checked.add(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "check_paths", check)
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def images() -> Dataset:
    """240 grey images of 8×8 in three classes that a linear model can tell apart, none equal
    to another.
    """
    return make_images(240)
