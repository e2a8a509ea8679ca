"""Damaged files, checkpoints and configurations are refused with a typed error, whatever
the damage.
"""

from __future__ import annotations

import random
import warnings

import pytest
from fuzz import file_targets as module
from fuzz.file_targets import Read, file_targets
from helpers import make_images, tiny_config

from secure_fl import Federation
from secure_fl.errors import SecureFLError

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Read]:
    run, scratch = tmp_path_factory.mktemp("fuzz") / "run", tmp_path_factory.mktemp("scratch")
    privacy = {"unit": "example", "noise": 8.0, "epsilon": 500.0}
    Federation(
        tiny_config(privacy=privacy, pretrain={"rounds": 1}, pools={"rounds": 2}),
        data=make_images(240),
    ).run(run)
    return dict(file_targets(run, scratch))


def attempt(targets: dict[str, Read], kind: str, count: int) -> tuple[int, list[str]]:
    """How many documents were refused, and what else than a typed error came out."""
    refused, faults = 0, list[str]()
    for seed in range(count):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                targets[kind](random.Random(f"{kind} {seed}"))
            except SecureFLError:
                refused += 1
            except Exception as error:
                faults.append(f"{kind}, seed {seed}: {type(error).__name__}: {str(error)[:120]}")
    return refused, faults


QUICK, QUICK_PAGES = 25, 4
SLOW_PAGES = ("summary", "partition", "embedding")
"""A page takes a tenth of a second to draw."""


def test_every_kind_of_damaged_document_is_typed(targets: dict[str, Read]) -> None:
    counts = {kind: QUICK_PAGES if kind in SLOW_PAGES else QUICK for kind in targets}
    found = {kind: attempt(targets, kind, count) for kind, count in counts.items()}
    assert [fault for _, faults in found.values() for fault in faults] == []
    assert len(found) == 25
    assert all(
        refused > 0
        for kind, (refused, _) in found.items()
        if kind not in ("list of results", "overrides")
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_damaged_documents_of_each_kind(targets: dict[str, Read]) -> None:
    faults = [
        fault
        for kind in targets
        for fault in attempt(targets, kind, 100 if kind in SLOW_PAGES else 400)[1]
    ]
    assert faults == []


def test_an_untyped_error_would_be_seen(
    targets: dict[str, Read], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: a card as it was read before, field by field."""
    import json

    monkeypatch.setattr(
        module,
        "load_card",
        lambda run: json.loads((run / "model" / "model.json").read_text())["shape"],
    )
    _, faults = attempt(targets, "model card", QUICK)
    assert faults
