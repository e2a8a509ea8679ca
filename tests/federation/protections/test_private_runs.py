"""Runs under differential privacy: what is recorded, what is refused, what a resume releases, and
what never leaves a client.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federation.parts import engine_of, state_at
from helpers import StopAfter, tiny_config

from secure_fl import Dataset, Federation
from secure_fl.engines import embedded
from secure_fl.errors import ConfigError, PrivacyError, TrainingError
from secure_fl.federation.asks import TrainCandidate, TrainEncoder
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.federation.protections.open import Open
from secure_fl.federation.protections.protection import Trained
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.budget import digest_of
from secure_fl.models.state import to_vector
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource

EXAMPLE = {"unit": "example", "noise": 2.0, "epsilon": 60.0}
CLIENT = {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3}


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of a test draws the same noise, so that runs can be compared."""
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


def private(privacy: dict[str, Any], **tables: dict[str, Any]) -> Any:
    return tiny_config(privacy=privacy, **tables)


def test_every_release_of_an_example_level_run_is_in_the_ledger_once(
    tmp_path: Path, images: Dataset
) -> None:
    result = Federation(private(EXAMPLE), data=images).run(tmp_path / "run")
    ledger = PrivacyLedger.load(tmp_path / "run" / "ledger.json")
    assert ledger.verify().ok
    by_phase = {
        phase: [r for r in ledger.releases if r.phase == phase]
        for phase in ("pretrain", "centre", "sketch", "cluster")
    }
    assert {phase: len(releases) for phase, releases in by_phase.items()} == {
        "pretrain": 8,
        "centre": 4,
        "sketch": 4,
        "cluster": 12,
    }
    assert all(
        release.basis == "declared" and len(release.subjects) == 1 for release in ledger.releases
    )
    privacy = result.summary.privacy
    events = [release.event for release in ledger.releases if release.subjects == (0,)]
    assert privacy.clients["0"] == pytest.approx(epsilon(events, 1e-5, Adjacency.ZERO_OUT))
    assert max(privacy.clients.values()) == privacy.epsilon
    assert {claim.unit for claim in privacy.claims} == {"example"}
    assert not (tmp_path / "run" / "private-results").exists()
    assert result.records[-1].metrics.privacy.epsilon >= privacy.epsilon - 1e-9


def test_nothing_but_noised_values_leaves_a_private_client(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, seen = ExampleLevel.sent, list[Any]()

    def watched(
        self: ExampleLevel, ask: Any, updates: Any, trained: Trained, score: Any = None
    ) -> Any:
        seen.append((trained, score))
        return sent(self, ask, updates, trained, score)

    monkeypatch.setattr(ExampleLevel, "sent", watched)
    Federation(private(EXAMPLE), data=images).run()
    assert seen
    assert all(trained.weight == 1.0 and trained.terms == {} for trained, _ in seen)
    assert all(score is None or score.losses == () for _, score in seen)


@pytest.mark.parametrize(
    "privacy",
    [
        pytest.param(EXAMPLE, marks=pytest.mark.slow),
        {**EXAMPLE, "choice": "exponential", "choice_every": 2},
        CLIENT,
    ],
    ids=["sketch", "choice", "client"],
)
def test_a_stopped_run_releases_nothing_twice_and_ends_the_same(
    tmp_path: Path, images: Dataset, privacy: dict[str, Any]
) -> None:
    config = private(privacy)
    whole = Federation(config, data=images).run(tmp_path / "whole")
    expected = {
        release.key for release in PrivacyLedger.load(tmp_path / "whole" / "ledger.json").releases
    }
    for stop in range(1, len(whole.records), 3):
        out = tmp_path / f"stopped-{stop}"
        with pytest.raises(KeyboardInterrupt):
            Federation(
                config, data=images, callbacks=[StopAfter(stop, midway=stop % 4 == 1, at_end=True)]
            ).run(out)
        resumed = Federation(config, data=images).run(out, resume=True)
        assert {
            release.key for release in PrivacyLedger.load(out / "ledger.json").releases
        } == expected, f"stopped after {stop}"
        assert resumed.summary.privacy == whole.summary.privacy
        assert resumed.choices == whole.choices


def test_after_a_crash_the_same_answer_is_sent_again_even_with_other_noise(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(private(EXAMPLE), data=images)
    vector = torch.zeros(len(to_vector(federation.factory.encoder_projector())))
    ask = TrainEncoder(0, vector)
    answers = []
    for seed in (1, 2):
        monkeypatch.setattr(embedded, "new_noise", lambda seed=seed: NoiseSource.for_tests(seed))
        client = engine_of(federation, ReleaseBox(tmp_path / "results")).clients[0]
        answers.append(client.protection.train_encoder(ask, 0).pooled)
    assert torch.equal(*answers)
    other = client.protection.train_encoder(TrainEncoder(0, vector + 1), 0).pooled
    assert not torch.equal(other, answers[0])


def test_another_question_in_the_same_round_is_another_release(images: Dataset) -> None:
    federation = Federation(private(EXAMPLE), data=images)
    protection = engine_of(federation).clients[0].protection
    first, second = (
        protection.releases(TrainEncoder(0, torch.full((3,), value)), 0) for value in (0.0, 1.0)
    )
    assert first[0].key != second[0].key
    assert digest_of(TrainEncoder(0, torch.zeros(3))) != digest_of(TrainEncoder(1, torch.zeros(3)))


def test_the_round_that_would_pass_the_budget_does_not_start(
    tmp_path: Path, images: Dataset
) -> None:
    events = [GaussianEvent(2.0, 16 / 40, 3)]
    budget = epsilon(events, 1e-5, Adjacency.ZERO_OUT) * 1.01
    config = private({"unit": "example", "noise": 2.0, "epsilon": budget})
    federation = Federation(config, data=images)
    with pytest.raises(PrivacyError, match="would pass"):
        federation.run(tmp_path / "run")
    ledger = PrivacyLedger.load(tmp_path / "run" / "ledger.json")
    assert ledger.maximum(ledger.budget, fine=True) <= budget  # type: ignore[arg-type]


def test_calibrated_noise_uses_the_budget_and_no_more(images: Dataset) -> None:
    result = Federation(private({"unit": "example", "epsilon": 6.0}), data=images).run()
    assert 5.8 < result.summary.privacy.epsilon <= 6.0


def test_a_private_client_never_makes_up_a_sketch(images: Dataset) -> None:
    federation = Federation(private(EXAMPLE), data=images)
    client = engine_of(federation).clients[0]
    assert isinstance(client.protection, ExampleLevel)
    with pytest.raises(PrivacyError, match="has not been released"):
        client.sketch.own()


@pytest.mark.parametrize(
    ("privacy", "tables", "message"),
    [
        ({"unit": "example"}, {"objective": {"form": "code"}}, "Frobenius"),
        ({"unit": "example"}, {"pools": {"start": "restarts"}}, "no private form"),
        ({"unit": "example", "adjacency": "add-remove"}, {}, "number of examples"),
        (
            {"unit": "example", "choice": "exponential"},
            {"pools": {"task": "self_supervised"}},
            "bounded losses",
        ),
        ({"unit": "client", "adjacency": "add-remove"}, {}, "noise share"),
        ({"unit": "client"}, {"pools": {"participation": 0.5}}, "roster"),
        ({"unit": "example"}, {"pools": {"weights": "examples"}}, "private count"),
    ],
)
def test_what_cannot_be_private_is_refused_in_the_configuration(
    privacy: dict[str, Any], tables: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        private(privacy, **tables)


def test_batch_statistics_and_batch_losses_are_refused_with_their_remedy(images: Dataset) -> None:
    with pytest.raises(PrivacyError, match="group"):
        Federation(private(EXAMPLE, model={"norm": "batch"}), data=images).run()
    with pytest.raises(PrivacyError, match='mechanism = "group"'):
        Federation(private(EXAMPLE, objective={"name": "nt_xent"}), data=images).run()


@pytest.mark.parametrize(
    "objective", ["nt_xent", "spectral_contrastive", "masked", "align_uniform"]
)
def test_every_objective_has_a_mechanism_in_a_run(images: Dataset, objective: str) -> None:
    mechanism = "group" if objective == "nt_xent" else "auto"
    config = private(
        {**EXAMPLE, "mechanism": mechanism}, objective={"name": objective}, pools={"enabled": False}
    )
    result = Federation(config, data=images).run()
    assert 0 < result.summary.privacy.epsilon < 60


def test_an_encoder_trained_without_privacy_is_no_start(tmp_path: Path, images: Dataset) -> None:
    Federation(tiny_config(pools={"enabled": False}, model={"features": 64}), data=images).run(
        tmp_path / "open"
    )
    with pytest.raises(PrivacyError, match="without privacy"):
        Federation(
            private(
                EXAMPLE,
                pretrain={"mode": "load", "load_from": str(tmp_path / "open")},
                model={"features": 64},
            ),
            data=images,
        ).run()


def test_a_model_that_combines_or_remembers_rows_in_train_mode_is_refused(images: Dataset) -> None:
    class Centred(torch.nn.Module):
        def __init__(self, remember: bool) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64))
            self.remember = remember
            self.register_buffer("mean", torch.zeros(64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h: torch.Tensor = self.layers(x)
            if self.training and self.remember:
                self.mean = h.detach().mean(0)
            elif self.training:
                h = h - h.mean(0)
            return h

    for remember, message in ((True, "buffer changes"), (False, "depends on the other rows")):
        federation = Federation(
            private(EXAMPLE), data=images, encoder=lambda seed, remember=remember: Centred(remember)
        )
        with pytest.raises(PrivacyError, match=message):
            federation.run()


def test_noised_updates_are_sent_by_clients_whose_training_fails(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that stopped would show that its data made training diverge."""
    federation = Federation(private(CLIENT), data=images)
    client, (_, state) = engine_of(federation).clients[0], state_at(federation, "pretrain")

    def diverge(*_: object, **__: object) -> None:
        raise TrainingError("diverged", field="lr", value=1.0, remedy="less")

    monkeypatch.setattr(Open, "train_encoder", diverge)
    answer = client.answered(state, 0)
    assert bool(answer.blocks.pools.any())
    assert answer.seen.exploded == 0


@pytest.mark.parametrize("privacy", [EXAMPLE, CLIENT], ids=["example", "client"])
def test_what_has_no_private_answer_gets_none(images: Dataset, privacy: dict[str, Any]) -> None:
    federation = Federation(private(privacy), data=images)
    protection = engine_of(federation).clients[0].protection
    ask = TrainCandidate(PoolSet(torch.empty(0), torch.zeros(2, 3)))
    for answer in (protection.check, lambda ask: protection.train_candidate(ask, 0)):
        with pytest.raises(PrivacyError, match="not answered"):
            answer(ask)


def test_warm_up_follows_the_sketch_even_where_pools_are_chosen_by_loss(images: Dataset) -> None:
    result = Federation(private({**EXAMPLE, "choice": "exponential"}), data=images).run()
    warm_up = next(record for record in result.records if record.phase == "cluster")
    assert len(set(warm_up.metrics.choices.values())) > 1


def test_an_example_level_run_works_under_encryption(images: Dataset) -> None:
    tables = {"partition": {"clients": 6, "groups": 2}, "security": {"protection": "bfv+masked"}}
    result = Federation(private(EXAMPLE, **tables), data=images).run()
    assert {claim.adversary for claim in result.summary.privacy.claims} > {"key holder"}
    assert result.summary.privacy.pools


def test_clients_without_labels_take_part_under_privacy(images: Dataset) -> None:
    result = Federation(private(EXAMPLE, data={"labelled_clients": 0.5}), data=images).run()
    assert set(result.choices) == {0, 1, 2, 3}


def test_heads_on_a_frozen_private_encoder_are_trained_privately(images: Dataset) -> None:
    result = Federation(private(EXAMPLE, pools={"encoder": "frozen"}), data=images).run()
    assert result.summary.privacy.epsilon > 0
