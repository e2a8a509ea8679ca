"""Runs at client level: the sums that leave clients, the means that are opened from them, and what
is claimed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federation.parts import engine_of, program_of, state_at, summed
from helpers import tiny_config

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.engines import embedded
from secure_fl.federation.asks import TrainEncoder
from secure_fl.federation.releases import privacy_record
from secure_fl.models.state import to_vector
from secure_fl.privacy.adjacency import PrivacyUnit
from secure_fl.privacy.claims import Setting
from secure_fl.privacy.client_level import FIELD_LIMIT
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource

CLIENT = {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3}


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of a test draws the same noise, so that runs can be compared."""
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


def private(privacy: dict[str, Any], **tables: dict[str, Any]) -> Any:
    return tiny_config(privacy=privacy, **tables)


def test_client_level_sums_are_integers_and_the_claim_has_both_units(
    tmp_path: Path, images: Dataset
) -> None:
    federation = Federation(private(CLIENT), data=images)
    _, state = state_at(federation, "pretrain")
    answers = [
        client.answer(state, number) for number, client in enumerate(engine_of(federation).clients)
    ]
    assert all(blocks.pools.dtype == torch.int64 for blocks in answers)
    result = federation.run(tmp_path / "run")
    ledger = PrivacyLedger.load(tmp_path / "run" / "ledger.json")
    assert all(isinstance(release.event, IntegerEvent) for release in ledger.releases)
    claims = result.summary.privacy.claims
    assert {claim.unit for claim in claims} == {"client", "example"}
    server = next(
        claim for claim in claims if claim.adversary == "server" and claim.unit == "client"
    )
    model = next(
        claim
        for claim in claims
        if claim.adversary == "other clients and the public model" and claim.unit == "client"
    )
    assert server.epsilon is None or server.epsilon > model.epsilon


def test_claims_state_both_thresholds_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of forty clients that all mask with each other t = 27 open an update, and 2t − 40 = 14 with a
    server that lies, whatever `neighbours` above says; of fifteen neighbours 11 and 7."""
    settings: list[Setting] = []
    monkeypatch.setattr(
        privacy_record, "claims", lambda *arguments: settings.append(arguments[-1]) or []
    )
    ledger = PrivacyLedger()
    monkeypatch.setattr(ledger, "subjects", lambda _: tuple(range(40)))
    for neighbours in (None, 50, 40, 14):
        config = FederationConfig(
            partition={"clients": 40},
            privacy={"unit": "client"},
            security={"neighbours": neighbours},
        )
        privacy_record._claims(config, ledger, PrivacyUnit.CLIENT)
    assert [(setting.threshold, setting.against_a_liar) for setting in settings] == [
        (27, 14)
    ] * 3 + [(11, 7)]


def test_the_opened_mean_is_the_mean_of_the_clients_changes(images: Dataset) -> None:
    """With next to no noise and a bound that clips nobody, client-level pre-training is
    uniform averaging.
    """
    tables: dict[str, Any] = {
        "pools": {"enabled": False},
        "pretrain": {"rounds": 1, "weights": "uniform"},
    }
    plain = Federation(tiny_config(**tables), data=images)
    privacy = {"unit": "client", "noise": 1e-3, "min_clients": 3, "clip": 100.0}
    federation = Federation(private(privacy, **tables), data=images)
    program, state = state_at(federation, "pretrain")
    ask = TrainEncoder(0, to_vector(federation.factory.encoder_projector()))
    clients = engine_of(plain, clients=federation.clients).clients
    changes = [
        client.protection.train_encoder(ask, number).pooled.double()
        for number, client in enumerate(clients)
    ]
    opened, _ = summed(program, engine_of(federation), state)
    plan = federation.factory.client_plan
    assert plan is not None
    level = plan.of("pretrain")
    _, means = level.open_pools(opened.total, level.open_head(opened.total.head, opened.survivors))
    step = level.bound / level.levels
    noise = step * level.variance**0.5 * (4 / level.honest) ** 0.5 / 4
    assert (means[0] - sum(changes) / 4).abs().max() < 6 * noise + step


def test_openings_allow_what_the_mechanism_can_make_and_no_more(images: Dataset) -> None:
    federation = Federation(private({**CLIENT, "adaptive_clip": True}), data=images)
    plan = federation.factory.client_plan
    assert plan is not None
    for step in program_of(federation).steps:
        level, opening = plan.of(step.name), step.form(0).opening
        assert (opening.bound, opening.head_bound, opening.margin) == (
            *level.largest_fields,
            level.noise_margin,
        )
        assert (
            4 * max(opening.bound, opening.head_bound) + opening.margin
            == level.largest
            <= FIELD_LIMIT
        )
        assert (opening.fewest, opening.minimum, opening.count_unit) == (
            3,
            level.minimum,
            max(1, level.count_unit),
        )
