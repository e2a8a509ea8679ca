"""The checks of a run's record, its account and its charges: honest runs hold, what was changed or
left out shows, and what can't show is known.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from secure_fl.audit.bounds import epsilon_of_gaussian
from secure_fl.audit.check import Check, Depth, Fault
from secure_fl.audit.checks.account import ACCOUNT
from secure_fl.audit.checks.charges import CHARGES
from secure_fl.audit.checks.record import RECORD
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.planted import account, record
from secure_fl.audit.planted.record import small
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.planting import Planting
from secure_fl.config import FederationConfig
from secure_fl.errors import AuditError
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.run import Federation

ALL = (RECORD, ACCOUNT, CHARGES)
CHOOSING = small(
    pretrain={"rounds": 1},
    privacy={"unit": "example", "min_clients": None, "choice": "exponential"},
    pools={"enabled": True, "rounds": 2, "warmup_rounds": 0, "start": "pretrained"},
)
SKETCHING = small(
    pretrain={"rounds": 1},
    privacy={"unit": "example", "min_clients": None},
    pools={"enabled": True, "rounds": 1, "warmup_rounds": 0, "start": "sketch"},
)


def said(check: Check, subject: Subject) -> Outcome:
    assert check.refused(subject) == ""
    return check.run(subject, Depth.MINUTES, 0, lambda _: None)


def verdicts(subject: Subject) -> dict[str, str]:
    return {check.name: said(check, subject).verdict for check in ALL}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[FederationConfig], Path]:
    folders: dict[str, Path] = {}

    def run(config: FederationConfig) -> Path:
        key = config.model_dump_json()
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("run") / "run"
            Federation(config).run(folders[key], progress=False)
        return folders[key]

    return run


@pytest.fixture
def folder(made: Callable[[FederationConfig], Path], tmp_path: Path) -> Path:
    """A copy of a run at client level, to be changed."""
    return Path(shutil.copytree(made(small()), tmp_path / "run"))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(small(), id="client"),
        pytest.param(SKETCHING, id="sketch"),
        pytest.param(CHOOSING, id="choice", marks=pytest.mark.slow),
    ],
)
def test_an_honest_run_holds(
    made: Callable[[FederationConfig], Path], config: FederationConfig
) -> None:
    subject = Subject.of(made(config))
    assert verdicts(subject) == dict.fromkeys(("record", "account", "charges"), "held")
    claims = [each for each in said(ACCOUNT, subject).figures if each.name.startswith("claim")]
    assert all(each.low is not None and each.limit is not None for each in claims)
    assert subject.summary is not None
    assert subject.summary.privacy is not None
    assert len(claims) == len(subject.summary.privacy.claims)


def test_the_account_is_the_closed_form_where_there_is_one() -> None:
    """Two steps with everybody in, at a noise of 2: one Gaussian of μ = √2/2."""
    config = small(
        privacy={"unit": "example", "min_clients": None},
        pretrain={"rounds": 2, "local_epochs": 1, "batch_size": 64},
    )
    exact = epsilon_of_gaussian(math.sqrt(2) / 2, config.privacy.delta)
    for figure in said(ACCOUNT, Subject(config)).figures:
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= exact <= figure.high
        assert figure.high - figure.low < 1e-3
        assert figure.limit is not None
        assert figure.limit == pytest.approx(exact, rel=1e-3)


def test_a_run_made_longer_keeps_the_noise_that_it_began_with(
    made: Callable[[FederationConfig], Path], tmp_path: Path
) -> None:
    calibrated = {"unit": "example", "min_clients": None, "noise": None, "epsilon": 8.0}
    folder = Path(shutil.copytree(made(small(privacy=calibrated)), tmp_path / "run"))
    RunFolder.open(folder).change(small(privacy=calibrated, pretrain={"rounds": 9}), "")
    assert said(CHARGES, Subject.of(folder)).verdict == "held"
    (folder / "configs" / "1.toml").unlink()
    assert "noise_multiplier" in said(CHARGES, Subject.of(folder)).said, "nine rounds ask for more"


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (record._shortened, {"record", "charges"}),
        (record._with_more_noise, {"record", "charges"}),
        (record._understated, {"record", "account"}),
        (record._with_a_round_less, {"record"}),
        (record._with_another_model, {"record"}),
    ],
)
def test_a_changed_record_shows(
    folder: Path, change: Callable[[Path], None], seen: set[str]
) -> None:
    change(folder)
    for check in ALL:
        if check.name in seen:
            assert said(check, Subject.of(folder)).verdict == "broken"


def test_a_ledger_that_forgot_from_the_start_is_whole_and_its_charges_are_not(
    tmp_path: Path,
) -> None:
    """At example level nothing in the record ties a sum to a charge."""
    config = small(privacy={"unit": "example", "min_clients": None})
    with account._forgetful():
        Federation(config).run(tmp_path / "run", progress=False)
    found = said(CHARGES, Subject.of(tmp_path / "run"))
    assert said(RECORD, Subject.of(tmp_path / "run")).verdict == "held"
    assert said(ACCOUNT, Subject.of(tmp_path / "run")).verdict == "held"
    assert found.verdict == "broken"
    assert "pretrain, round 2: 3 clients were asked, 0 are charged" in found.said


QUICK = [fault for fault in account.FAULTS if not fault.finished]


@pytest.mark.parametrize("fault", QUICK, ids=[fault.name for fault in QUICK])
def test_a_planted_accountant_shows(fault: Fault) -> None:
    planting = Planting.of(fault)
    said = [planting.trial(0, planted=planted).verdict for planted in (False, True)]
    assert said == ["held", "broken"]


def test_what_does_not_apply_is_said(folder: Path) -> None:
    nothing = Subject(small(privacy={"unit": "none", "noise": None, "min_clients": None}))
    assert all(check.refused(nothing) for check in ALL)
    assert RECORD.refused(Subject(small()))
    assert CHARGES.refused(Subject(small()))
    assert ACCOUNT.refused(Subject(small())) == ""
    (folder / "ledger.json").unlink()
    gone = Subject.of(folder)
    assert said(RECORD, gone).verdict == "broken"
    with pytest.raises(AuditError, match="not there"):
        said(ACCOUNT, gone)
