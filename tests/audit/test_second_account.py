"""The second account against the first, against dp_accounting alone, and against closed forms."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import replace
from pathlib import Path

import mpmath
import numpy as np
import pytest
from audit.random_ledgers import CLIENT, EXAMPLE, random_ledger, release, saved
from dp_accounting import NeighboringRelation
from dp_accounting.pld import privacy_loss_distribution as pld

from secure_fl.audit import bracket, check_claim, integer_losses, losses, second_account
from secure_fl.audit.bounds import epsilon_of_gaussian
from secure_fl.audit.integer_losses import IntegerNoise
from secure_fl.audit.losses import Answered, Noised, Pair, epsilon_of_losses
from secure_fl.errors import AuditError
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.claims import Setting, claims
from secure_fl.privacy.events import Event, GaussianEvent, IntegerEvent, PureEvent
from secure_fl.privacy.ledger import Budget, PrivacyLedger

SKELLAM = IntegerEvent("skellam", 1e6, 100.0, 1000.0, 200.0, 2000.0, 4, 10, 1)


def both(releases: dict[Pair, int], delta: float) -> tuple[float, float]:
    low = epsilon_of_losses(releases, delta, "low")
    return low, epsilon_of_losses(releases, delta, "high")


def test_it_shares_nothing_with_the_first() -> None:
    own = {"secure_fl.audit.losses", "secure_fl.audit.integer_losses"}
    allowed = own | {f"secure_fl.{name}" for name in ("errors", "files", "paths", "records")}
    for module in (losses, integer_losses, second_account):
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text())
        froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name for name in froms if name and name.startswith("secure_fl")} <= allowed
        assert not {name for name in froms if name and "dp_accounting" in name}


@pytest.mark.parametrize("mu", [0.1, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_the_gaussian_mechanism_lies_within(mu: float, delta: float) -> None:
    low, high = both({Noised(mu): 1}, delta)
    exact = epsilon_of_gaussian(mu, delta)
    assert low <= exact <= high
    assert high - low <= 1e-3 * exact + 1e-4


def test_sums_with_everybody_in_compose_as_their_squares_add_up() -> None:
    low, high = both({Noised(0.3): 4, Noised(0.8): 1}, 1e-5)
    assert low <= epsilon_of_gaussian(1.0, 1e-5) <= high


@pytest.mark.parametrize("count", [1, 7, 60])
def test_two_answers_lie_within_the_binomial_sum(count: int) -> None:
    epsilon, delta = 0.4, 1e-4
    low, high = both({Answered(epsilon): count}, delta)
    q = 1 / (1 + math.exp(-epsilon))

    def exact(at: float) -> float:
        terms = (
            (math.comb(count, k) * q**k * (1 - q) ** (count - k), (2 * k - count) * epsilon)
            for k in range(count + 1)
        )
        return sum(mass * -math.expm1(at - loss) for mass, loss in terms if loss > at)

    assert exact(high) <= delta <= exact(low) * (1 + 1e-3) + 1e-12 or low == 0
    assert high - low <= 2e-3 * high + 1e-3


@pytest.mark.parametrize(
    ("noise", "rate", "steps"),
    [
        (1.0, 0.01, 300),
        (0.8, 0.02, 1),
        pytest.param(0.7, 0.1, 40, marks=pytest.mark.slow),
        pytest.param(3.0, 0.5, 50, marks=pytest.mark.slow),
        pytest.param(1.2, 1e-3, 1000, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("replaced", [False, True])
def test_sampled_sums_lie_between_dp_accountings_own_roundings(
    noise: float, rate: float, steps: int, replaced: bool
) -> None:
    relation = (
        NeighboringRelation.REPLACE_ONE if replaced else NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    delta = 1e-5
    most, least = (
        pld.from_gaussian_mechanism(
            noise,
            sampling_prob=rate,
            neighboring_relation=relation,
            value_discretization_interval=5e-5,
            pessimistic_estimate=pessimistic,
        )
        .self_compose(steps)
        .get_epsilon_for_delta(delta)
        for pessimistic in (True, False)
    )
    low, high = both({Noised(1 / noise, rate, replaced): steps}, delta)
    assert low <= most
    assert least <= high
    assert high - low <= 3e-3 * high


def check(seed: int, folder: Path) -> None:
    """What the first account says is never below the bracket, nor far above it."""
    ledger, budget = random_ledger(seed)
    claimed = ledger.maximum(budget)
    found = check_claim(claimed, saved(ledger, folder), budget.delta)
    assert found.passed, (seed, found)
    assert found.low <= found.high * (1 + 1e-9)
    # The first charges the sampler's error at the whole ε, so that it has no bound beyond 60.
    assert claimed <= found.high * 1.01 + 1e-3 or found.high > 60, (seed, found)
    events = [each.event for each in ledger.releases]
    if all(isinstance(each, GaussianEvent) for each in events):
        assert found.high - found.low <= 1e-2 * found.high + 1e-3, (seed, found)
    too_low = check_claim(0.98 * found.low, saved(ledger, folder), budget.delta)
    assert found.low == 0 or too_low.finding == "below"


@pytest.mark.parametrize("seed", range(6))
def test_random_ledgers_are_within_their_brackets(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_random_ledgers_are_within_their_brackets(tmp_path: Path) -> None:
    for seed in range(1000, 1200):
        check(seed, tmp_path)


def one_release(event: Event, path: Path, adjacency: str = "zero-out") -> Path:
    ledger = PrivacyLedger(Budget(1e6, 1e-5, EXAMPLE, Adjacency(adjacency)))
    ledger.record(release("only", event))
    return saved(ledger, path)


def test_a_claim_from_half_the_steps_is_found_below(tmp_path: Path) -> None:
    event = GaussianEvent(1.0, 0.01, 1000)
    path = one_release(event, tmp_path)
    half = PrivacyLedger()
    half.record(release("only", replace(event, steps=500)))
    claimed = half.spent(EXAMPLE, 0, 1e-5, Adjacency.ZERO_OUT)
    assert check_claim(claimed, path, 1e-5).finding == "below"
    assert check_claim(1.85, path, 1e-5).finding == "above"
    assert check_claim(None, path, 1e-5).passed


def test_replacing_moves_a_sum_twice_as_far(tmp_path: Path) -> None:
    low, high = bracket(one_release(GaussianEvent(2.0, 1.0, 1), tmp_path, "replace-one"), 1e-5)
    assert low <= 4.3772 <= high  # 2.17 is what an account says that ignores the relation
    assert low > 4.37


def test_a_client_level_release_charges_the_examples_behind_it_at_replace_one() -> None:
    entry = release("only", GaussianEvent(2.0, 1.0, 1), CLIENT, also=EXAMPLE).to_dict()
    of_client = bracket([entry], 1e-5, unit="client", adjacency="zero-out")
    of_example = bracket([entry], 1e-5, unit="example", adjacency="zero-out")
    assert of_client.low == pytest.approx(epsilon_of_gaussian(0.5, 1e-5), rel=1e-3)
    assert of_example.low == pytest.approx(epsilon_of_gaussian(1.0, 1e-5), rel=1e-3)


def test_histories_are_alternatives_and_own_releases_come_on_top() -> None:
    entries = [
        release("a", GaussianEvent(2.0, 1.0, 1), history=0).to_dict(),
        release("b", GaussianEvent(4.0, 1.0, 1), history=1).to_dict(),
        release("c", GaussianEvent(4.0, 1.0, 1)).to_dict(),
        release("d", GaussianEvent(9.0, 1.0, 1), subjects=(1,)).to_dict(),
    ]
    low, high = bracket(entries, 1e-5, unit="example", adjacency="zero-out")
    assert low <= epsilon_of_gaussian(math.sqrt(1 / 4 + 1 / 16), 1e-5) <= high
    low, high = bracket(entries, 1e-5, unit="example", adjacency="zero-out", subject=1)
    assert low <= epsilon_of_gaussian(1 / 9, 1e-5) <= high


def test_a_claim_of_a_run_is_checked_as_it_is_written(tmp_path: Path) -> None:
    ledger = PrivacyLedger(Budget(8.0, 1e-5, EXAMPLE, Adjacency.ADD_REMOVE))
    ledger.record(release("steps", GaussianEvent(1.1, 0.02, 200), subjects=(0, 1, 2)))
    rows = claims(ledger, EXAMPLE, Adjacency.ADD_REMOVE, 1e-5, Setting("masked"))
    for row in rows:
        assert check_claim(row.epsilon, saved(ledger, tmp_path), row.delta).passed


def test_bounded_ranges_lie_between_the_two_mechanisms(tmp_path: Path) -> None:
    found = {
        bounded: bracket(one_release(PureEvent(0.5, bounded, 20), tmp_path), 1e-5)
        for bounded in (False, True)
    }
    assert found[True].high == pytest.approx(found[False].high)
    assert found[True].low < 0.6 * found[False].low


@pytest.mark.parametrize("variance", [4.0, 9e3, 1.1e4, 1e8])
@pytest.mark.parametrize("kind", ["skellam", "discrete_gaussian"])
def test_laws_of_integer_noise_are_laws_of_that_variance(kind: str, variance: float) -> None:
    noise = IntegerNoise(kind, variance, 1.0, 1.0, 1, 1, 0.0)  # type: ignore[arg-type]
    moved, law = noise.laws()
    numbers = np.arange(len(law)) - (len(law) - 2) // 2
    assert law.sum() == pytest.approx(1, abs=1e-8)
    assert moved.sum() == pytest.approx(1, abs=1e-8)
    assert (law * numbers**2).sum() == pytest.approx(variance, rel=1e-5)
    if kind == "skellam" and variance < 1e5:
        few = np.array([0, 7, 40])
        with mpmath.workdps(30):
            exact = [mpmath.besseli(int(n), variance) * mpmath.exp(-variance) for n in few]
        assert law[few + (len(law) - 2) // 2] == pytest.approx([float(x) for x in exact], rel=1e-8)


@pytest.mark.parametrize("kind", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("adjacency", ["zero-out", "replace-one"])
def test_integer_noise_lies_between_one_pair_and_the_curves(
    kind: str, adjacency: str, tmp_path: Path
) -> None:
    event = replace(SKELLAM, kind=kind)
    found = bracket(one_release(event, tmp_path, adjacency), 1e-5)
    far = 0.1 if adjacency == "zero-out" else 0.2
    assert found.low == pytest.approx(epsilon_of_gaussian(far, 1e-5), rel=2e-2)
    first = epsilon([event], 1e-5, Adjacency(adjacency))
    assert found.high == pytest.approx(first, rel=1e-3)
    assert found.low < 0.99 * found.high


@pytest.mark.parametrize(
    "event",
    [
        replace(SKELLAM, l2=0.5, l1=0.5),
        replace(SKELLAM, kind="discrete_gaussian", variance=1.0, parties=9),
    ],
    ids=["nothing moves", "far from a discrete Gaussian"],
)
def test_what_has_no_pair_below_counts_as_nothing_there(
    event: IntegerEvent, tmp_path: Path
) -> None:
    low, high = bracket(one_release(event, tmp_path), 1e-5)
    assert low == 0 < high


def test_integer_noise_composes_with_sums_and_answers(tmp_path: Path) -> None:
    ledger = PrivacyLedger(Budget(1e6, 1e-5, CLIENT, Adjacency.ZERO_OUT))
    for key, event in (("a", SKELLAM), ("b", GaussianEvent(3.0, 1.0, 1)), ("c", SKELLAM)):
        ledger.record(release(key, event, CLIENT))
    low, high = bracket(saved(ledger, tmp_path), 1e-5)
    together = epsilon_of_gaussian(math.sqrt(2 * 0.01 + 1 / 9), 1e-5)
    assert low == pytest.approx(together, rel=1e-2)
    assert together < high < 1.5 * together


def test_events_without_a_pair_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="too wide to be written down"):
        bracket(one_release(replace(SKELLAM, variance=1e15), tmp_path), 1e-5)
    entry = json.loads(json.dumps(release("x", PureEvent(0.1, False, 1)).to_dict()))
    entry["event"]["more"] = 1
    with pytest.raises(AuditError, match="fields of a pure event"):
        bracket([entry], 1e-5, unit="example", adjacency="zero-out")
    entry["event"] = {"event": "shuffled", "steps": 3}
    with pytest.raises(AuditError, match="shuffled"):
        bracket([entry], 1e-5, unit="example", adjacency="zero-out")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    entry = release("x", PureEvent(0.1, False, 1)).to_dict()
    for given, field in (
        ({"adjacency": "zero-out"}, "unit"),
        ({"unit": "example"}, "adjacency"),
        ({"unit": "client", "adjacency": "add-remove"}, "adjacency"),
    ):
        with pytest.raises(AuditError) as refused:
            bracket([entry], 1e-5, **given)  # type: ignore[arg-type]
        assert refused.value.field == field
    (tmp_path / "ledger.json").write_text("[]")
    with pytest.raises(AuditError, match="not a ledger of this format"):
        bracket(tmp_path / "ledger.json", 1e-5)
    with pytest.raises(AuditError, match="not a probability"):
        bracket([entry], 0.0, unit="example", adjacency="zero-out")
