"""Runs whose encoder is made of view moments: one sum whatever protects it, charged once to each
client, opened over enough of them or not at all, and never noised twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federation.parts import engine_of, program_of, summed
from federation.verify.records import Written, forge, of_kind
from helpers import StopAfter, make_images

from secure_fl import Federation
from secure_fl.audit.check import Depth
from secure_fl.audit.checks.charges import CHARGES
from secure_fl.audit.second_account import bracket
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.engines import embedded
from secure_fl.errors import ConfigError, ModelError, PrivacyError
from secure_fl.federation.asks import SumFeatures, SumMoments
from secure_fl.federation.local.moments import ClientMoments
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import State
from secure_fl.federation.steps.view_moments import ViewMomentSums
from secure_fl.federation.summing import Summed
from secure_fl.federation.verify.check import verify
from secure_fl.finished.summary import unprotected
from secure_fl.models.convnet import ConvNet
from secure_fl.models.state import to_vector
from secure_fl.models.view_features import WhitenedEncoder
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.ledger import PrivacyLedger, Release
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.grid import Blocks

IMAGES = make_images(72)


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of a test draws the same noise, so that runs can be compared."""
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


def config(protection: str = "plain", **tables: dict[str, Any]) -> FederationConfig:
    base: dict[str, dict[str, Any]] = {
        "partition": {"kind": "rotation", "clients": 6, "groups": 2},
        "model": {"features": 16},
        "pretrain": {"method": "view_moments", "views_per_example": 3, "prior": "none"},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
        "security": {"protection": protection},
    }
    return FederationConfig(**{k: base.get(k, {}) | tables.get(k, {}) for k in base | tables})


def private(protection: str = "plain", **tables: dict[str, Any]) -> FederationConfig:
    privacy = {"unit": "example", "epsilon": 4.0} | tables.pop("privacy", {})
    return config(protection, privacy=privacy, **tables)


def made(chosen: FederationConfig) -> Federation:
    return Federation(chosen, data=IMAGES)


def opened_at(federation: Federation, state: State | None = None) -> tuple[State, Summed]:
    """The first round's state and sum, or those of the state given."""
    program, engine = program_of(federation), engine_of(federation)
    state = state or program.start()
    return state, summed(program, engine, state)[0]


@pytest.mark.parametrize(("unit", "head"), [("none", "whitening"), ("example", "fisher")])
def test_whatever_protects_the_sum_the_encoder_is_the_same_bit_for_bit(
    unit: str, head: str
) -> None:
    chosen = private if unit == "example" else config
    vectors = [
        to_vector(made(chosen(protection, pretrain={"head": head})).run().encoder)
        for protection in ("plain", "masked", "bfv+masked")
    ]
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])
    fresh = to_vector(made(config()).factory.encoder())
    assert float((vectors[0] - fresh).norm()) > 1


def test_the_sum_is_that_of_all_examples_wherever_they_are() -> None:
    """Exact integers: who holds an example does not matter, but for the coins of its views."""
    few, many = (
        made(config(partition={"kind": "iid", "groups": 1, "clients": clients}))
        for clients in (3, 6)
    )
    sums = [opened_at(each)[1].total.pools[0] for each in (few, many)]
    examples = sum(len(client.train) for client in few.clients)
    levels = few.factory.view_moments.centre.levels
    assert sums[0][-1] == examples * levels
    if examples == sum(len(client.train) for client in many.clients):
        assert torch.equal(*sums)


def test_everybody_is_charged_once_for_each_sum_and_for_nothing_else(tmp_path: Path) -> None:
    federation = made(private("masked"))
    result = federation.run(tmp_path / "run")
    ledger = PrivacyLedger.load(tmp_path / "run" / "ledger.json")
    moments = federation.factory.view_moments
    for number, event in enumerate(moments.events()):
        charged = [each for each in ledger.releases if each.round == number]
        assert [each.subjects for each in charged] == [(client,) for client in range(6)]
        assert {each.event for each in charged} == {event}
        assert {(each.unit, each.phase) for each in charged} == {(PrivacyUnit.EXAMPLE, "pretrain")}
    assert len(ledger.releases) == 12
    spent = result.summary.privacy.epsilon
    assert spent == pytest.approx(epsilon(moments.events(), 1e-5, Adjacency.ZERO_OUT), rel=1e-3)
    assert 3.98 < spent <= 4
    low, high = bracket(tmp_path / "run" / "ledger.json", 1e-5)
    assert low <= spent <= high
    assert not verify(tmp_path / "run").findings


@pytest.mark.parametrize("left_out", [None, SumFeatures])
def test_a_sum_that_is_not_charged_is_found(
    left_out: type | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged = ExampleLevel.releases

    def releases(self: ExampleLevel, ask: Any, position: int) -> tuple[Release, ...]:
        free = left_out is not None and isinstance(ask, left_out)
        return () if free else charged(self, ask, position)

    monkeypatch.setattr(ExampleLevel, "releases", releases)
    made(private()).run(tmp_path / "run")
    subject = Subject.of(tmp_path / "run", data=IMAGES)
    found = CHARGES.run(subject, Depth.MINUTES, 0, lambda _: None)
    assert found.verdict == ("held" if left_out is None else "broken"), found.said


def test_a_killed_client_sends_what_it_stored_and_draws_no_noise_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = to_vector(made(private()).run().encoder)
    for rounds in (0, 1):
        out = tmp_path / f"after {rounds}"
        stop = StopAfter(rounds, midway=True, at_end=True)
        with pytest.raises(KeyboardInterrupt):
            Federation(private(), data=IMAGES, callbacks=[stop]).run(out)
        monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(8))
        resumed = to_vector(made(private()).run(out, resume=True).encoder)
        same = torch.equal(resumed, whole)
        # The second sum of a run that stopped in its first is drawn from the other source.
        assert same == (rounds == 1)
        assert len(PrivacyLedger.load(out / "ledger.json").releases) == 12
        monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


def test_an_answer_is_made_once_over_two_lives_of_a_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, answers = made(private()), []
    for seed in (1, 2):
        monkeypatch.setattr(embedded, "new_noise", lambda seed=seed: NoiseSource.for_tests(seed))
        client = engine_of(federation, ReleaseBox(tmp_path / "results")).clients[0]
        answers.append(client.protection.sum_examples(SumFeatures()))
    assert torch.equal(*answers)
    centres = [torch.full((16,), value, dtype=torch.float64) for value in (0.0, 0.1)]
    keys = {client.protection.releases(SumMoments(centre), 0)[0].key for centre in centres}
    assert len(keys) == 2


def test_what_leaves_a_client_is_its_sum_and_one_share_of_the_noise() -> None:
    federation = made(private())
    client, sums = engine_of(federation).clients[0], federation.factory.view_moments.moments
    ask = SumMoments(torch.zeros(16, dtype=torch.float64))
    bare = client.local.moments.total(ask)
    share = (client.protection.sum_examples(ask) - bare).double()
    deviation = (sums.variance / sums.shares.honest) ** 0.5
    assert 0.75 < float(share.square().mean().sqrt()) / deviation < 1.3
    assert int(bare[-1]) == sums.levels * len(federation.clients[0].train)
    assert int(bare.abs().max()) == int(bare[-1])


def test_fewer_survivors_than_the_noise_was_made_for_are_not_opened() -> None:
    federation = made(private("masked"))
    step, moments = program_of(federation).steps[0], federation.factory.view_moments
    assert isinstance(step, ViewMomentSums)
    assert moments.moments.shares.n_min == 5
    for number in (0, 1):
        opening = step.form(number).opening
        assert opening.fewest == 5
        assert opening.whole
        assert opening.margin > 0
    state, opened = opened_at(federation)
    few = Summed(opened.total, 4)
    with pytest.raises(PrivacyError, match="must not be opened"):
        step.apply(state, few)


def test_a_record_of_fewer_survivors_refutes_the_claim(tmp_path: Path) -> None:
    measured = {"enabled": True, "probe_epochs": 1, "knn": 5}
    made(private("plain", evaluate=measured)).run(tmp_path / "run")

    def fewer(entries: Written) -> None:
        facts = of_kind(entries, "sum")
        facts["survivors"] = facts["survivors"][:4]

    forge(tmp_path / "run", fewer)
    found = [each.problem for each in verify(tmp_path / "run").findings]
    assert any("charged for 4 honest ones and 1 colluding" in each for each in found)


def test_a_sum_without_noise_is_charged_to_nobody_and_said_in_red() -> None:
    federation = made(config())
    assert engine_of(federation).clients[0].protection.releases(SumFeatures(), 0) == ()
    assert any("no differential privacy" in each for each in unprotected(federation.config))
    assert any("one share" in each for each in unprotected(private("plain")))


def test_applying_is_a_pure_function_of_what_was_opened() -> None:
    federation = made(private())
    program = program_of(federation)
    state, opened = opened_at(federation)
    after = program.apply(state, opened)
    assert after == program_of(made(private())).apply(state, opened)
    other = Blocks(opened.total.head, opened.total.shared, opened.total.pools + 1)
    assert after != program.apply(state, Summed(other, opened.survivors))
    assert after.tensors["moments.centre"].dtype == torch.float64


def test_pools_are_trained_on_the_encoder_that_the_sums_made(tmp_path: Path) -> None:
    pools = {"enabled": True, "count": 2, "rounds": 1, "local_epochs": 1, "sketch_starts": 4}
    chosen = private("masked", pools=pools, privacy={"epsilon": 8.0})
    result = made(chosen).run(tmp_path / "run")
    assert isinstance(result.encoder, WhitenedEncoder)
    assert chosen.pools.encoder == "frozen"
    for pool in result.pools:
        for name, tensor in pool.encoder.state_dict().items():
            assert torch.equal(tensor, result.encoder.state_dict()[name])
    phases = [each.phase for each in result.records]
    assert phases[:4] == ["pretrain", "pretrain", "centre", "sketch"]
    assert result.summary.privacy.epsilon <= 8
    ledger = PrivacyLedger.load(tmp_path / "run" / "ledger.json")
    first = [each.event for each in ledger.releases if each.phase == "pretrain"]
    assert epsilon(first[:1] + first[6:7], 1e-5, Adjacency.ZERO_OUT) <= 4
    assert not verify(tmp_path / "run").findings


def test_the_synthetic_prior_is_nobodys_and_the_same_for_all() -> None:
    one, other = (made(config(pretrain={"prior": "synthetic"})) for _ in range(2))
    prior = one.factory.moment_prior
    assert prior is not None
    assert torch.equal(prior, other.factory.moment_prior)
    assert 0 < float(torch.linalg.matrix_norm(prior)) <= 1
    assert float(torch.linalg.eigvalsh(prior).min()) > -1e-3
    assert made(config()).factory.moment_prior is None


@pytest.mark.parametrize(
    ("tables", "field"),
    [
        ({"pretrain": {"mode": "none"}, "pools": {"enabled": True}}, "pretrain.mode"),
        ({"pretrain": {"rounds": 3}}, "pretrain.rounds"),
        ({"pretrain": {"participation": 0.5}}, "pretrain.participation"),
        ({"privacy": {"unit": "client"}}, "privacy.unit"),
        ({"security": {"robust": "median", "protection": "masked"}}, "security.robust"),
        ({"pools": {"enabled": True, "encoder": "finetune"}}, "pools.encoder"),
        ({"model": {"encoder": "convnet"}}, "model.encoder"),
        ({"privacy": {"unit": "example", "moment_epsilon": 9.0}}, "privacy.moment_epsilon"),
        (
            {"privacy": {"unit": "example", "moment_epsilon": 8.0}, "pools": {"enabled": True}},
            "privacy.moment_epsilon",
        ),
        ({"privacy": {"unit": "example", "min_clients": 7}}, "privacy.min_clients"),
        ({"privacy": {"unit": "example", "colluders": 5}}, "privacy.min_clients"),
    ],
)
def test_what_cannot_be_combined_is_refused_by_its_setting(
    tables: dict[str, Any], field: str
) -> None:
    with pytest.raises((ConfigError, PrivacyError)) as refused:
        made(config(**tables)).run()
    assert refused.value.field == field
    assert refused.value.remedy


def test_an_encoder_of_the_callers_own_is_refused() -> None:
    with pytest.raises(ModelError, match="bring their own encoder"):
        Federation(config(), data=IMAGES, encoder=ConvNet(1, 16, "group"))


def test_an_augmentation_that_mixes_examples_is_refused_before_anything_is_released(
    tmp_path: Path,
) -> None:
    def mixing(x: torch.Tensor) -> torch.Tensor:
        return (x + x.roll(1, 0)) / 2

    federation = Federation(private(), data=IMAGES, augment=mixing)
    with pytest.raises(PrivacyError, match="depends on other examples"):
        federation.run(tmp_path / "run")
    ledger = tmp_path / "run" / "ledger.json"
    assert not ledger.exists() or not PrivacyLedger.load(ledger).releases


def test_a_callers_augmentation_makes_each_examples_views_alone() -> None:
    def noisy(x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * torch.randn(x.shape)

    federation = Federation(config(), data=IMAGES, augment=noisy)
    local = engine_of(federation).clients[0].local
    ask = SumMoments(torch.zeros(16, dtype=torch.float64))
    first = local.data.train.take(torch.tensor([0]))
    alone = ClientMoments(first, local.bench, local.seed("views")).total(ask)
    whole = local.moments.total(ask)
    local.data.train.x[1:] = float("nan")
    assert not torch.equal(local.moments.total(ask), whole)
    assert torch.equal(local.moments.total(ask)[:-1], alone[:-1])
