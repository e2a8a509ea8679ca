"""Every objective declares how it couples examples, and the declaration is tested, not believed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secure_fl.config import ObjectiveConfig
from secure_fl.errors import TrainingError
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.objective import Objective, TwoViews, total_loss
from secure_fl.objectives.separation import Separation

SEPARATION = Separation(
    torch.tensor([0, 2]),
    basis=torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0],
)
OBJECTIVES: dict[str, Objective] = {
    "nt_xent": build_objective(ObjectiveConfig(name="nt_xent")),
    "spectral": build_objective(ObjectiveConfig(name="spectral_contrastive")),
    "align_uniform": build_objective(ObjectiveConfig(name="align_uniform"), SEPARATION),
    "ssd_nt_xent": build_objective(ObjectiveConfig(name="ssd_nt_xent"), SEPARATION),
    **{
        f"ssd_{form}": build_objective(ObjectiveConfig(form=form), SEPARATION)
        for form in ("code", "paper", "normalized")
    },
}


def model() -> EncoderProjector:
    torch.manual_seed(0)
    return EncoderProjector(nn.Linear(5, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 6))).double()


def views(n: int = 5) -> TwoViews:
    generator = torch.Generator().manual_seed(1)
    return TwoViews(
        *(torch.randn(n, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_terms_declared_per_example_are_means_of_single_examples(name: str) -> None:
    objective, network, batch = OBJECTIVES[name], model(), views()
    whole = objective.terms(batch, network)
    for term, coupling in objective.couplings.items():
        if coupling is Coupling.PER_EXAMPLE:
            alone = [_single_term(objective, network, batch, i, term) for i in range(5)]
            torch.testing.assert_close(whole[term], torch.stack(alone).mean())


def _single_term(
    objective: Objective, network: EncoderProjector, batch: TwoViews, i: int, term: str
) -> Tensor:
    """The term on one example; uniformity, undefined there, is left out by asking for it twice and
    reading the other terms.
    """
    twice = TwoViews(batch.first[[i, i]], batch.second[[i, i]])
    return objective.terms(twice, network)[term]


def test_code_form_couples_the_batch_through_its_norm() -> None:
    objective, network, batch = OBJECTIVES["ssd_code"], model(), views()
    alone = torch.stack(
        [_single_term(objective, network, batch, i, "dsr") for i in range(5)]
    ).mean()
    assert not torch.isclose(objective.terms(batch, network)["dsr"], alone, rtol=1e-3)
    assert objective.couplings["dsr"] is Coupling.BATCH


def test_widest_coupling() -> None:
    assert OBJECTIVES["spectral"].coupling is Coupling.STATISTIC
    assert OBJECTIVES["nt_xent"].coupling is Coupling.BATCH
    assert OBJECTIVES["ssd_normalized"].coupling is Coupling.BATCH
    assert OBJECTIVES["ssd_normalized"].couplings["dsr"] is Coupling.PER_EXAMPLE


def test_terms_weights_and_couplings_agree() -> None:
    for objective in OBJECTIVES.values():
        assert (
            set(objective.weights)
            == set(objective.couplings)
            == set(objective.terms(views(), model()))
        )


def test_gamma_belongs_to_its_form_and_zero_weights_cost_nothing() -> None:
    assert OBJECTIVES["ssd_code"].weights["dsr"] == 1
    assert OBJECTIVES["ssd_normalized"].weights["dsr"] == 0.055
    assert OBJECTIVES["ssd_paper"].weights["dsr"] == 0.01
    chosen = build_objective(ObjectiveConfig(gamma=0.3, delta=0), SEPARATION)
    assert chosen.weights == {"align": 1, "uniformity": 1, "dsr": 0.3}
    assert "distillation" not in chosen.terms(views(), model())


def test_ssd_without_gamma_and_delta_is_align_uniform() -> None:
    plain = OBJECTIVES["align_uniform"].terms(views(), model())
    off = build_objective(ObjectiveConfig(gamma=0, delta=0), SEPARATION).terms(views(), model())
    assert plain.keys() == off.keys()
    assert all(torch.equal(plain[name], off[name]) for name in plain)


def test_ssd_around_nt_xent_replaces_alignment_and_uniformity() -> None:
    terms, plain = (
        OBJECTIVES["ssd_nt_xent"].terms(views(), model()),
        OBJECTIVES["ssd_code"].terms(views(), model()),
    )
    assert terms.keys() == {"nt_xent", "dsr", "distillation"}
    assert torch.equal(terms["nt_xent"], OBJECTIVES["nt_xent"].terms(views(), model())["nt_xent"])
    torch.testing.assert_close(terms["dsr"], plain["dsr"])
    assert torch.equal(terms["distillation"], plain["distillation"])


def test_total_is_the_weighted_sum_and_names_what_is_not_finite() -> None:
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert total_loss({"a": 1.0, "b": 0.5}, terms).item() == 3.5
    terms["b"] = torch.tensor(float("nan"))
    with pytest.raises(TrainingError, match=r"'b': nan"):
        total_loss({"a": 1.0, "b": 0.5}, terms)
