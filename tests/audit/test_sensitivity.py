"""The sensitivity check passes what is right, every objective and every mechanism of the project,
and finds what is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from privacy.broken import InGroups, Lying
from torch import Tensor, nn

from secure_fl import audit
from secure_fl.audit.finding import Finding, SensitivityReport
from secure_fl.audit.neighbours import CLOUDS, NEWCOMERS, linear_model
from secure_fl.config import ObjectiveConfig
from secure_fl.errors import PrivacyError
from secure_fl.experimental.logit import LogitDP
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.contrastive import NTXent, SpectralContrastive
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.masked import MaskedReconstruction
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.separation import Separation
from secure_fl.objectives.unit_objectives import CrossEntropy, unit_form
from secure_fl.privacy.mechanisms.group import GroupNTXent, group_form
from secure_fl.privacy.mechanisms.mechanism import Labelled
from secure_fl.privacy.mechanisms.per_example import AdaptiveBound, PerExample
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics

WIDTH = 6
BASIS = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)))[0]
SEPARATION = Separation(torch.tensor([0, 2]), basis=BASIS)


def objective(name: str, form: str = "normalized") -> Any:
    return build_objective(ObjectiveConfig(name=name, form=form), SEPARATION)  # type: ignore[arg-type]


OBJECTIVES: dict[str, Objective] = {
    **{
        name: objective(name)
        for name in ("nt_xent", "spectral_contrastive", "align_uniform", "ssd_nt_xent")
    },
    **{f"ssd_{form}": objective("ssd", form) for form in ("code", "paper", "normalized")},
    "groups": InGroups(2, 2),
}


def network(kind: str) -> nn.Module:
    """A linear model and one that a user might bring, both `[N, WIDTH]` -> width WIDTH."""
    if kind == "linear":
        return linear_model(WIDTH)
    torch.manual_seed(0)
    return EncoderProjector(
        nn.Sequential(nn.Linear(WIDTH, 8), nn.GroupNorm(2, 8), nn.Tanh(), nn.Linear(8, WIDTH)),
        nn.Linear(WIDTH, WIDTH),
    )


@pytest.mark.parametrize("kind", ["linear", "user"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_couples_as_it_declares(name: str, kind: str) -> None:
    audit.check_sensitivity(
        OBJECTIVES[name], model=network(kind), shape=(WIDTH,), examples=8
    ).require()


def test_an_objective_that_draws_coins_is_compared_with_the_same_coins() -> None:
    model = EncoderProjector(nn.Flatten(), nn.Linear(64, WIDTH))
    audit.check_sensitivity(
        MaskedReconstruction(0), model=model, shape=(1, 8, 8), examples=8
    ).require()


LIES: dict[str, tuple[Any, dict[str, Coupling]]] = {
    "NT-Xent as per-example": (objective("nt_xent"), {"nt_xent": Coupling.PER_EXAMPLE}),
    "NT-Xent as a statistic": (objective("nt_xent"), {"nt_xent": Coupling.STATISTIC}),
    "NT-Xent as groups": (objective("nt_xent"), {"nt_xent": Coupling.GROUP}),
    "uniformity as per-example": (objective("align_uniform"), {"uniformity": Coupling.PER_EXAMPLE}),
    "uniformity as a statistic": (objective("align_uniform"), {"uniformity": Coupling.STATISTIC}),
    "a moment as per-example": (
        objective("spectral_contrastive"),
        {"moment": Coupling.PER_EXAMPLE},
    ),
    "a moment as groups": (objective("spectral_contrastive"), {"moment": Coupling.GROUP}),
    "DSR's code form as per-example": (objective("ssd", "code"), {"dsr": Coupling.PER_EXAMPLE}),
    "DSR's code form as a statistic": (objective("ssd", "code"), {"dsr": Coupling.STATISTIC}),
    "smaller groups than there are": (InGroups(4, 2), {}),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_objective_that_declares_less_than_it_has_is_found(lie: str) -> None:
    honest, declared = LIES[lie]
    subject = Lying(honest, declared) if declared else honest
    report = audit.check_sensitivity(subject, model=linear_model(WIDTH), shape=(WIDTH,), examples=8)
    found = {finding.released for finding in report.findings if finding.ratio > 100}
    assert found == (set(declared) or {"nt_xent"})


def test_groups_without_a_size_are_refused() -> None:
    subject = Lying(objective("nt_xent"), {"nt_xent": Coupling.GROUP}, group_size=0)
    with pytest.raises(PrivacyError, match="group_size"):
        audit.check_sensitivity(subject)


def test_a_model_that_mixes_examples_is_found() -> None:
    mixing = EncoderProjector(
        nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)), nn.Identity()
    )
    report = audit.check_sensitivity(
        Lying(objective("spectral_contrastive"), {}), model=mixing, shape=(WIDTH,), examples=8
    )
    assert not report.passed


def units(name: str) -> Any:
    return unit_form(objective(name), WIDTH, seed=0, pairs=16)


def labelled(rows: Tensor) -> Labelled:
    return Labelled(rows, (rows.flatten(1).nan_to_num().sum(1) > 0).long())


SETTINGS = (100, 0.1, 1.0)
MECHANISMS: dict[str, tuple[Any, Callable[[Tensor], Any] | None]] = {
    "spectral": (ReleasedStatistics(units("spectral_contrastive"), *SETTINGS), None),
    "ssd": (ReleasedStatistics(units("ssd"), *SETTINGS, 0.1), None),
    "ssd by hooks": (ReleasedStatistics(units("ssd"), *SETTINGS, 0.1, method="hooks"), None),
    "masked": (
        PerExample(MaskedReconstruction(0), *SETTINGS, 0.1),
        lambda rows: Labelled(rows, rows[:, 0].cos()),
    ),
    "labels": (PerExample(CrossEntropy(), *SETTINGS, 0.1), labelled),
    "labels, adaptive": (PerExample(CrossEntropy(), *SETTINGS, AdaptiveBound(0.1)), labelled),
    **{
        f"groups of {m}": (GroupNTXent(group_form(NTXent(0.1), m), 0.5, 1.0, 0.1, 100), None)
        for m in (2, 3, 8)
    },
    "groups, hooks": (
        GroupNTXent(group_form(NTXent(0.1), 4), 0.5, 1.0, 0.1, 100, method="hooks"),
        None,
    ),
    "groups, SSD": (GroupNTXent(group_form(objective("ssd_nt_xent"), 4), 0.5, 1.0, 0.1, 100), None),
    "logit": (LogitDP(0.5, 0.05, 1.0, 0.1, 100, 32), None),
}


@pytest.mark.parametrize("kind", ["linear", "user"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_no_mechanism_releases_more_than_it_claims(name: str, kind: str) -> None:
    mechanism, prepare = MECHANISMS[name]
    report = audit.check_sensitivity(
        mechanism, model=network(kind), shape=(WIDTH,), examples=8, prepare=prepare
    )
    report.require()
    assert report.findings


@pytest.mark.parametrize("name", ["spectral", "groups of 3", "groups, SSD", "labels"])
def test_claims_are_not_idle(name: str) -> None:
    """Somewhere the bound is attained: a check that compares nothing, or a claim that is far too
    large, would pass as well.
    """
    mechanism, prepare = MECHANISMS[name]
    assert (
        audit.check_sensitivity(
            mechanism, model=linear_model(WIDTH), shape=(WIDTH,), examples=8, prepare=prepare
        ).ratio
        > 0.95
    )


@pytest.mark.parametrize("name", ["spectral", "ssd", "groups of 3", "logit"])
def test_a_claim_that_is_too_small_is_found(name: str) -> None:
    mechanism, _ = MECHANISMS[name]

    class Smaller:
        members, views, adjacencies = getattr(mechanism, "members", 1), 2, mechanism.adjacencies
        released_sums = staticmethod(mechanism.released_sums)

        def sensitivity(self, adjacency: Any) -> list[float]:
            return [
                claim * (0.9 if name != "logit" else 1e-3)
                for claim in mechanism.sensitivity(adjacency)
            ]

    assert not audit.check_sensitivity(
        Smaller(), model=linear_model(WIDTH), shape=(WIDTH,), examples=8
    ).passed


def test_units_are_checked_alone_too() -> None:
    for name in ("spectral_contrastive", "ssd"):
        audit.check_sensitivity(units(name), shape=(WIDTH,), examples=8).require()
    audit.check_sensitivity(group_form(NTXent(0.5), 4), examples=8).require()


def test_the_report_names_what_it_found() -> None:
    findings = (
        Finding("add", "hub", "x", 3.0, 1.0),
        Finding("remove", "itself", "x", float("nan"), 1.0),
    )
    report = SensitivityReport("Subject", findings)
    assert report.worst is findings[1]
    assert report.ratio == float("inf")
    with pytest.raises(
        PrivacyError, match=r"x of Subject changes by 3 where 1 is claimed \(add, hub\)"
    ):
        SensitivityReport("Subject", findings[:1]).require()
    assert SensitivityReport("Subject", ()).passed
    assert Finding("add", "hub", "x", 0.0, 0.0).ratio == 0


def test_models_and_random_state_are_left_alone() -> None:
    model, state = network("user"), torch.random.get_rng_state()
    before = [p.clone() for p in model.parameters()]
    first = audit.check_sensitivity(SpectralContrastive(), model=model, shape=(WIDTH,), examples=8)
    assert first == audit.check_sensitivity(
        SpectralContrastive(), model=model, shape=(WIDTH,), examples=8
    )
    assert all(
        torch.equal(p, q) and p.grad is None
        for p, q in zip(model.parameters(), before, strict=True)
    )
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_and_newcomers_have_the_shape_asked_for(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((1,), (3,), (2, 4, 4)):
        x = CLOUDS[name](5, 3, shape, generator)
        assert x.shape == (5, 3, *shape)
        assert torch.isfinite(x).all()
        assert all(new(x, generator).shape == x[0].shape for new in NEWCOMERS.values())


def test_exports_are_lazy_and_resolve() -> None:
    assert audit.check_sensitivity.__name__ in audit.__all__
    assert all(getattr(audit, name) for name in audit.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = audit.nothing
