"""What the models of a finished run say, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from secure_fl import Federation
from secure_fl.audit.attacks.first_layer import leaks
from secure_fl.audit.attacks.membership_models import released_figures
from secure_fl.audit.attacks.pool_models import from_models
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.errors import AuditError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rotated digits at four clients, two pools that overfit."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    config = FederationConfig.model_validate(
        {
            "data": {"sources": [{"name": "digits", "limit": 200}]},
            "partition": {"clients": 4, "groups": 2},
            "pretrain": {"mode": "none"},
            "pools": {"count": 2, "rounds": 2, "local_epochs": 12, "start": "sketch"},
            "security": {"protection": "plain"},
            "evaluate": {"probe_epochs": 0},
        }
    )
    Federation(config).run(folder, progress=False)
    return folder


def test_pools_know_their_training_examples_and_an_untrained_encoder_none(finished: Path) -> None:
    figures = {each.name: each for each in released_figures(Subject.of(finished), 0, 200)}
    ending = "training against test examples"
    assert figures[f"AUC: loss by the released pools, {ending}"].value > 0.5
    bare = figures[f"AUC: set similarity by an untrained encoder, {ending}"]
    assert bare.low is not None
    assert bare.high is not None
    assert bare.low < 0.5 < bare.high
    assert {each.setting for each in figures.values()} == {""}


def test_released_pools_give_rotated_clients_away(finished: Path) -> None:
    found = from_models(Subject.of(finished), seed=0)
    assert found is not None
    assert found.clients == found.with_models == 4
    assert 2 <= found.without <= 4  # two groups, numbered in the better of the two ways


def test_layers_of_a_finished_run_are_read_with_encoders_that_it_did_not_have(
    tmp_path: Path,
) -> None:
    tables = {
        "data": {"sources": [{"name": "digits", "limit": 120}]},
        "partition": {"clients": 3, "kind": "iid"},
        "model": {"encoder": "mlp", "features": 16},
        "pretrain": {"rounds": 1, "local_epochs": 1},
        "pools": {"enabled": False},
        "evaluate": {"probe_epochs": 0},
    }
    Federation(tables).run(tmp_path / "run", progress=False)
    subject = Subject.of(tmp_path / "run")
    found = [each.name for each in leaks(subject, seed=0)]
    assert found == ["own first layer", "malicious first layer"]
    with pytest.raises(AuditError, match="none of its caller's own"):
        _ = replace(subject, encoder=subject.factory.encoder).federation


def test_before_a_run_has_ended_there_is_nothing_to_look_at() -> None:
    subject = Subject(FederationConfig())
    assert released_figures(subject, 0, 10) == ()
    assert from_models(subject, 0) is None
