"""The ways in which other accountants charge too little, each shut off here."""

from __future__ import annotations

import inspect
import math
import warnings
from dataclasses import fields, replace
from pathlib import Path

import pytest

import secure_fl.privacy.accounting as accounting
from secure_fl.errors import PrivacyError
from secure_fl.privacy import calibration, events, ledger
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.claims import Setting, claims
from secure_fl.privacy.events import Event, GaussianEvent, IntegerEvent, PureEvent
from secure_fl.privacy.ledger import Budget, PrivacyLedger, Release

ADD, ZERO, REPLACE = Adjacency.ADD_REMOVE, Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE
SKELLAM = IntegerEvent(
    "skellam", 64e6, 1000.0, 1e5, 2000.0, 2e5, parties=4, dimension=10_000, releases=50
)


def client_release(event: Event) -> Release:
    return Release("a", "cluster", 0, "update", PrivacyUnit.CLIENT, (0,), event, "derived")


def test_1_replace_one_is_not_charged_as_add_remove() -> None:
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    trap = (
        RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
        .compose(dp.GaussianDpEvent(2.0))
        .get_epsilon(1e-5)
    )
    assert trap == pytest.approx(2.166, abs=2e-3)
    assert epsilon([GaussianEvent(2.0, 1.0, 1)], 1e-5, REPLACE) == pytest.approx(4.377, abs=1e-3)


@pytest.mark.parametrize("rest", [[], [PureEvent(0.1, True, 5)], [SKELLAM]])
def test_1_no_sampled_gaussian_under_replace_one_meets_a_renyi_curve(
    rest: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a Rényi curve of the wrong relation")

    monkeypatch.setattr(accounting, "sampled_gaussian_curve", forbidden)
    sampled = GaussianEvent(1.0, 0.05, 20)
    assert (
        epsilon([sampled, *rest], 1e-5, REPLACE, fine=False)
        > epsilon([sampled], 1e-5, REPLACE, fine=False) - 1e-9
    )
    monkeypatch.undo()
    if rest:
        assert epsilon([sampled, *rest], 1e-5, REPLACE, fine=False) > epsilon(
            [sampled, *rest], 1e-5, ZERO, fine=False
        )


@pytest.mark.parametrize("noise", [0.8, 1.5, 4.0])
def test_1_full_participation_under_replace_one_is_twice_the_shift_in_every_mixture(
    noise: float,
) -> None:
    """Through the Rényi branch too: a Gaussian beside integer noise costs as one with half
    the noise.
    """
    whole, half = GaussianEvent(noise, 1.0, 3), GaussianEvent(noise / 2, 1.0, 3)
    same = replace(SKELLAM, l2=SKELLAM.l2_replace, l1=SKELLAM.l1_replace)
    assert epsilon([whole, SKELLAM], 1e-5, REPLACE) == pytest.approx(
        epsilon([half, same], 1e-5, ZERO), rel=1e-9
    )


def test_2_there_is_nowhere_to_put_a_rate_at_which_clients_are_sampled() -> None:
    names = {
        field.name
        for kind in (GaussianEvent, IntegerEvent, PureEvent, Release, Budget)
        for field in fields(kind)
    }
    names |= {
        name
        for function in (epsilon, calibration.noise_for, calibration.rounds_within)
        for name in inspect.signature(function).parameters
    }
    assert {name for name in names if "rate" in name or "sampl" in name or "fraction" in name} == {
        "sampling_rate"
    }
    with pytest.raises(PrivacyError, match="sampling clients amplifies nothing"):
        client_release(GaussianEvent(1.0, 0.5, 1))
    assert client_release(GaussianEvent(1.0, 1.0, 1)).unit is PrivacyUnit.CLIENT


def test_2_local_steps_under_one_coin_are_charged_in_full() -> None:
    """q = .01 over clients, ten full-batch steps at σ = 1 in each of 100 rounds: a coin for every
    step says 1.83, the shared coin 23.3.
    """
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    independent = epsilon([GaussianEvent(1.0, 0.01, 1000)], 1e-5, ADD, fine=False)
    shared = from_gaussian_mechanism(
        1 / math.sqrt(10), sampling_prob=0.01, value_discretization_interval=1e-2
    ).self_compose(100)
    charged = epsilon([GaussianEvent(1.0, 1.0, 10)] * 100, 1e-5, ADD)
    assert independent < 2 < 23 < shared.get_epsilon_for_delta(1e-5) < charged


def test_3_a_shuffled_batch_is_no_event() -> None:
    assert {kind.name for kind in Event.__subclasses__()} == {"gaussian", "integer", "pure"}
    for name in ("shuffle", "shuffled", "poisson_sampling", "without_replacement"):
        with pytest.raises(PrivacyError, match="unknown kind"):
            Event.from_dict({"event": name})
        with pytest.raises(PrivacyError, match="fields of"):
            Event.from_dict({**GaussianEvent(1.0, 0.1, 1).to_dict(), name: False})
    with pytest.raises(TypeError):
        GaussianEvent(1.0, 0.1, 1, shuffle=True)  # type: ignore[call-arg]
    assert "Shuffled" in str(GaussianEvent.__doc__)


def test_4_noise_spent_on_a_second_release_raises_the_charge() -> None:
    """Adaptive clipping splits σ into a part for gradients and one for the bit: the step is charged
    at the σ of both together.
    """
    gradients, bit = 1.1, 8.0
    together = (gradients**-2 + bit**-2) ** -0.5
    assert together < gradients
    assert epsilon([GaussianEvent(together, 0.05, 100)], 1e-5, ADD, fine=False) > epsilon(
        [GaussianEvent(gradients, 0.05, 100)], 1e-5, ADD, fine=False
    )


def test_5_opacus_agrees_where_it_bounds_and_its_limit_theorem_lies_below() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accountants = pytest.importorskip("opacus.accountants")
        found = {}
        for name in ("prv", "rdp", "gdp"):
            accountant = accountants.create_accountant(name)
            accountant.history = [(1.0, 0.01, 1000)]
            found[name] = accountant.get_epsilon(delta=1e-5)
    ours = epsilon([GaussianEvent(1.0, 0.01, 1000)], 1e-5, ADD)
    assert ours == pytest.approx(found["prv"], rel=0.02)
    assert found["gdp"] < 0.9 * ours < ours < found["rdp"]


def test_5_no_module_approximates_by_a_limit_theorem() -> None:
    folder = Path(str(events.__file__)).parent
    for path in folder.rglob("*.py"):
        text = path.read_text(encoding="utf-8").lower()
        assert "compute_eps_poisson" not in text, path
        assert "gdpaccountant" not in text, path


def test_6_more_survivors_than_counted_on_change_no_charge() -> None:
    """The event knows the parties that are certain and nothing of who came; fewer certain ones mean
    less noise.
    """
    assert not {"survivors", "cohort", "batch_size", "clients"} & {
        field.name for field in fields(IntegerEvent)
    }
    assert not {"batch_size", "batch", "size", "count"} & {
        field.name for field in fields(GaussianEvent)
    }
    assert epsilon([SKELLAM.own_share()], 1e-6, ZERO) > epsilon([SKELLAM], 1e-6, ZERO)
    assert SKELLAM.own_share().variance == SKELLAM.variance / 4


def test_7_a_search_over_settings_is_named_as_not_covered() -> None:
    book = PrivacyLedger()
    book.record(client_release(SKELLAM))
    for claim in claims(book, PrivacyUnit.CLIENT, ZERO, 1e-6, Setting("bfv+masked")):
        assert any("settings" in gap for gap in claim.not_covered)


def test_distributed_noise_costs_more_than_the_exact_gaussian() -> None:
    from dp_accounting import get_epsilon_gaussian

    z = math.sqrt(SKELLAM.variance) / SKELLAM.l2
    below = get_epsilon_gaussian(z / math.sqrt(SKELLAM.releases), 1e-6)
    assert below < epsilon([SKELLAM], 1e-6, ZERO) < 1.1 * below


def test_no_adjacency_is_assumed() -> None:
    for function in (
        epsilon,
        calibration.noise_for,
        calibration.smallest_noise,
        ledger.PrivacyLedger.spent,
    ):
        assert (
            inspect.signature(function).parameters["adjacency"].default is inspect.Parameter.empty
        )
    for name in ("unit", "adjacency"):
        assert {field.name: field for field in fields(Budget)}[name].default is not None
    with pytest.raises(TypeError):
        Budget(1.0, 1e-5)  # type: ignore[call-arg]
