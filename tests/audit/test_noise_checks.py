"""Checks of noise, pools, sketches, choices and seeds: each planted fault is found, and what is
honest holds.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import make_images, tiny_config
from scipy import stats

from secure_fl import Federation
from secure_fl.audit.check import Check, Depth, Fault
from secure_fl.audit.checks import choices, client_noise, moment_noise, seeds, sketch_noise
from secure_fl.audit.checks.choices import CHOICES
from secure_fl.audit.checks.client_noise import CLIENT_NOISE, certain
from secure_fl.audit.checks.moment_noise import MOMENT_NOISE
from secure_fl.audit.checks.noise_law import measured, of_gaussian, of_integers
from secure_fl.audit.checks.pool_noise import POOL_NOISE
from secure_fl.audit.checks.rounds_again import Given, RoundsAgain
from secure_fl.audit.checks.seeds import SEEDS
from secure_fl.audit.checks.sketch_noise import SKETCH_NOISE
from secure_fl.audit.checks.verdicts import SHARE, Findings
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.privacy.noise import NoiseSource

CHECKS: tuple[Check, ...] = (
    SEEDS,
    POOL_NOISE,
    CHOICES,
    SKETCH_NOISE,
    MOMENT_NOISE,
    CLIENT_NOISE,
)
FAULTS: dict[str, tuple[Fault, ...]] = {
    check.name: importlib.import_module(
        f"secure_fl.audit.planted.{check.name.replace('-', '_')}"
    ).FAULTS
    for check in CHECKS
}
PLANTED = [(check, fault) for check in CHECKS for fault in FAULTS[check.name]]
IMAGES = make_images(240)


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many canaries and draws as show the faults that are planted here."""
    monkeypatch.setattr(client_noise, "_CANARIES", {Depth.MINUTES: 100})
    monkeypatch.setattr(sketch_noise, "_CANARIES", {Depth.MINUTES: 200})
    monkeypatch.setattr(moment_noise, "_CANARIES", {Depth.MINUTES: 200})
    monkeypatch.setattr(choices, "_DRAWS", {Depth.MINUTES: 500})
    monkeypatch.setattr(seeds, "_ROUNDS", {Depth.MINUTES: 2})


def outcome(check: Check, config: FederationConfig, seed: int = 0) -> Outcome:
    # Sixteen values in eight rows and columns: sketches pool them as they are.
    return check.run(Subject(config, data=IMAGES), Depth.MINUTES, seed, lambda _: None)


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_what_is_honest_holds(check: Check) -> None:
    found = outcome(check, FAULTS[check.name][0].config())
    assert found.verdict == "held", found.said
    assert found.check == check.name
    assert found.false_alarm <= 1e-3


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize(
    ("check", "fault"), PLANTED, ids=[f"{check.name}: {fault.name}" for check, fault in PLANTED]
)
def test_a_planted_fault_is_found(check: Check, fault: Fault) -> None:
    assert fault.check == check.name
    with fault.plant():
        assert outcome(check, fault.config()).verdict == "broken"


def test_nothing_is_refused_that_the_faults_need_and_what_claims_nothing_is() -> None:
    open_run = tiny_config(pools={"start": "pretrained"})
    for check in CHECKS:
        assert not check.refused(Subject(FAULTS[check.name][0].config()))
        assert check.refused(Subject(open_run))
        assert check.estimate(Subject(open_run), Depth.MINUTES) <= 60


def test_moments_of_the_usual_width_are_tried_within_a_minute() -> None:
    usual, few = (tiny_config(model={"features": each}) for each in (None, 16))
    estimates = [MOMENT_NOISE.estimate(Subject(each), Depth.MINUTES) for each in (usual, few)]
    assert 50 < estimates[0] <= 60
    assert estimates[1] < 40


# The laws


@pytest.mark.parametrize("variance", [3.0, 40.0, 2.5e7])
def test_the_skellam_law_is_that_of_another_library(variance: float) -> None:
    """Draws by scipy's own generator pass, and as many of a normal law of that variance, rounded to
    even numbers, do not.
    """
    rng = np.random.default_rng(3)
    halves = rng.poisson(variance / 2, size=(2, 40_000))
    assert of_integers(halves[0] - halves[1], "skellam", variance) > 1e-4
    even = 2 * np.rint(rng.normal(size=40_000) * (variance**0.5 / 2)).astype(np.int64)
    assert of_integers(even, "skellam", variance) < 1e-9


def test_the_discrete_gaussian_and_skellam_are_told_apart_where_they_differ() -> None:
    rng, values = np.random.default_rng(4), np.arange(-12, 13)
    law = np.exp(-(values**2) / 2.0)
    drawn = rng.choice(values, size=200_000, p=law / law.sum())
    assert of_integers(drawn, "discrete_gaussian", 1.0) > 1e-4
    assert of_integers(drawn, "skellam", 1.0) < 1e-9


def test_probabilities_of_noise_are_what_they_say() -> None:
    """Over 400 samples of true noise they are spread evenly; halved noise has none to speak of."""
    rng, narrow, far, normal = np.random.default_rng(5), [], [], []
    for _ in range(400):
        halves = rng.poisson(200.0, size=(2, 1500))
        drawn = (halves[0] - halves[1]).astype(np.int64)
        narrow.append(measured("", drawn.astype(float), 400.0).p_narrow)
        far.append(of_integers(drawn, "skellam", 400.0))
        normal.append(of_gaussian(rng.normal(size=1500)))
    assert stats.kstest(narrow, "uniform").pvalue > 1e-4
    assert stats.kstest(normal, "uniform").pvalue > 1e-4
    assert np.mean(np.array(far) <= 0.05) < 0.1  # twice the smaller of two, so at most 5 %
    assert measured("", rng.normal(size=90), 4.0).p_narrow < 1e-9


def test_a_check_says_how_often_it_is_wrong() -> None:
    found = Findings()
    for number in range(40):
        found.test(0.5, "")
        found.test(SHARE * 1.01, str(number))
    assert not found.broken
    assert found.false_alarm == pytest.approx(80 * SHARE)
    found.test(SHARE * 0.99, "narrow")
    assert found.broken
    told = found.outcome(CLIENT_NOISE, "server", "client", "as charged")
    assert (told.verdict, told.said, told.false_alarm) == ("broken", "narrow", found.false_alarm)


# The rounds


def level_config(protection: str, **tables: dict[str, object]) -> FederationConfig:
    return tiny_config(
        **{
            "partition": {"kind": "iid", "clients": 7},
            "objective": {"name": "align_uniform"},
            "pools": {"start": "pretrained", "count": 2, "rounds": 1},
            "pretrain": {"rounds": 1},
            "security": {"protection": protection},
            "privacy": {"unit": "client", "noise": 2.0, "epsilon": 1e3},
            "evaluate": {"enabled": False},
            **tables,
        }
    )


def test_rounds_are_those_of_the_run() -> None:
    """Masked, encrypted and opened by its parties, with its mechanism; shares are sized for
    n_min − c, and what is opened is what was sent.
    """
    subject = Subject(level_config("bfv+masked"), data=IMAGES)
    again, plan = RoundsAgain(subject, "cluster", width=50), subject.factory.client_plan
    assert plan is not None
    assert plan.pools is not None
    assert again.level == replace(plan.pools, pooled=50)
    assert certain(again) == plan.pools.n_min - 1 == 5
    changes = 9.0 * np.eye(50)[:7]
    played = again.play(Given(client_noise._float(changes), [0] * 7))
    total = played.opened.total
    assert played.opened.survivors == 7
    assert (total.pools[0] == played.total.pools[0]).all()
    # its noised count decides whether a pool that nobody chose is opened
    opened = again.level.open_head(total.head, played.opened.survivors).passing
    assert total.pools.any(1).tolist() == opened.tolist()
    clean = again.clean(3, played.given, None)
    assert clean.pools[0, 3] == again.level.levels
    assert clean.pools.count_nonzero() == 1
    assert [release.event for release in played.charged] == [again.level.event(1)] * 7


def test_an_adaptive_bound_random_rounding_and_replacing_are_played_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_noise, "_CANARIES", {Depth.MINUTES: 60})
    privacy = {"unit": "client", "noise": 2.0, "epsilon": 1e3, "adaptive_clip": True}
    more = {"rounding": "conditional", "adjacency": "replace-one", "integer_noise": "skellam"}
    found = outcome(CLIENT_NOISE, level_config("plain", privacy=privacy | more))
    assert found.verdict == "held", found.said


def test_a_finished_runs_ledger_must_charge_this_mechanism(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_noise, "_CANARIES", {Depth.MINUTES: 60})
    config = level_config("plain", pools={"enabled": False})
    Federation(config, data=IMAGES).run(tmp_path / "run")
    subject = Subject(config, tmp_path / "run", data=IMAGES)
    assert subject.ledger is not None
    assert CLIENT_NOISE.run(subject, Depth.MINUTES, 0, lambda _: None).verdict == "held"
    privacy = {"unit": "client", "noise": 1.0, "epsilon": 1e3}
    less = level_config("plain", pools={"enabled": False}, privacy=privacy)
    other = Subject(less, tmp_path / "run", data=IMAGES)
    found = CLIENT_NOISE.run(other, Depth.MINUTES, 0, lambda _: None)
    assert "the ledger charges another mechanism" in found.said


def test_watching_leaves_generators_as_they_are() -> None:
    before = NoiseSource.for_tests(1).stream(client=0, round=0, purpose="a").words(20)
    with seeds.watched() as drawn:
        watched = NoiseSource.for_tests(1).stream(client=0, round=0, purpose="a").words(20)
        NoiseSource.for_tests(1).stream(client=0, round=0, purpose="a").words(1)
    assert (before == watched).all()
    found = Findings()
    drawn.judge(found)
    assert found.against == ["a stream of noise or coins came twice"]


@pytest.mark.slow
def test_a_thousand_canaries_show_no_more_than_is_charged() -> None:
    found = outcome(CLIENT_NOISE, FAULTS["client-noise"][0].config())
    assert found.verdict == "held", found.said
    shift = found.figures[-1]
    assert shift.limit == pytest.approx(1.0)
    assert abs(shift.value - 1.0) < 0.35
    assert all(bound.kind == "estimate" or bound.epsilon < 4.8 for bound in found.bounds)
    assert max(bound.epsilon for bound in found.bounds if bound.kind == "bound") > 2.0


@pytest.mark.slow
@pytest.mark.parametrize("check", [POOL_NOISE, SKETCH_NOISE, SEEDS], ids=lambda check: check.name)
def test_what_is_honest_holds_over_twenty_seeds(check: Check) -> None:
    config = FAULTS[check.name][0].config()
    for seed in range(20):
        found = outcome(check, config, seed)
        assert found.verdict == "held", (seed, found.said)
