"""The ledger: charged once, in any order, through any number of resumes, and never past
the budget.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.errors import FileError, PrivacyError
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.calibration import rounds_within
from secure_fl.privacy.chain import digest
from secure_fl.privacy.claims import Adversary, PrivacyClaim, Setting, claims
from secure_fl.privacy.events import Event, GaussianEvent, IntegerEvent, PureEvent
from secure_fl.privacy.ledger import Budget, PrivacyLedger, Release
from secure_fl.records import document

EXAMPLE, CLIENT = PrivacyUnit.EXAMPLE, PrivacyUnit.CLIENT
ADD, ZERO, REPLACE = Adjacency.ADD_REMOVE, Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE
SKELLAM = IntegerEvent(
    "skellam", 64e6, 1000.0, 1e5, 2000.0, 2e5, parties=4, dimension=10_000, releases=1
)
STEP = GaussianEvent(5.0, 1.0, 4)


def local(client: int, number: int, event: Event = STEP) -> Release:
    return Release(
        f"pretrain/{number}/{client}",
        "pretrain",
        number,
        "training",
        EXAMPLE,
        (client,),
        event,
        "declared",
    )


def summed(number: int, *, examples: bool = True) -> Release:
    also = EXAMPLE if examples else None
    return Release(
        f"cluster/{number}",
        "cluster",
        number,
        "update",
        CLIENT,
        (0, 1, 2),
        SKELLAM,
        "derived",
        also,
    )


def filled(*releases: Release, budget: Budget | None = None) -> PrivacyLedger:
    ledger = PrivacyLedger(budget)
    for release in releases:
        ledger.record(release)
    return ledger


def test_every_client_pays_for_its_own_and_the_federation_for_the_largest() -> None:
    ledger = filled(local(0, 0), local(1, 0), local(1, 1))
    assert ledger.spent(EXAMPLE, 0, 1e-5, ADD) == epsilon([STEP], 1e-5, ADD)
    assert ledger.spent(EXAMPLE, 1, 1e-5, ADD) == epsilon([STEP.times(2)], 1e-5, ADD)
    assert ledger.maximum(Budget(9, 1e-5, EXAMPLE, ADD)) == epsilon([STEP.times(2)], 1e-5, ADD)
    assert ledger.spent(EXAMPLE, 7, 1e-5, ADD) == 0.0


def test_units_are_never_mixed() -> None:
    ledger = filled(local(0, 0), summed(0, examples=False))
    assert ledger.spent(EXAMPLE, 0, 1e-5, ZERO) == epsilon([STEP], 1e-5, ZERO)
    assert ledger.spent(CLIENT, 0, 1e-5, ZERO) == epsilon([SKELLAM], 1e-5, ZERO)
    with pytest.raises(PrivacyError, match="noise for one example"):
        replace(local(0, 0), also_protects=CLIENT)
    with pytest.raises(PrivacyError, match="share"):
        ledger.spent(CLIENT, 0, 1e-5, ADD)
    with pytest.raises(PrivacyError, match="share"):
        Budget(1.0, 1e-5, CLIENT, ADD)


@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_examples_behind_client_level_noise_pay_at_replace_one(adjacency: Adjacency) -> None:
    ledger = filled(*(summed(number) for number in range(5)))
    assert ledger.spent(EXAMPLE, 0, 1e-5, adjacency) == epsilon([SKELLAM.times(5)], 1e-5, REPLACE)
    assert ledger.spent(CLIENT, 0, 1e-5, ZERO) == epsilon([SKELLAM.times(5)], 1e-5, ZERO)
    assert filled(summed(0, examples=False)).spent(EXAMPLE, 0, 1e-5, adjacency) == 0.0


def test_absent_examples_take_no_noise_share_along() -> None:
    centre = Release("centre", "start", 0, "statistic", EXAMPLE, (0, 1), SKELLAM, "derived")
    assert filled(centre).spent(EXAMPLE, 0, 1e-5, ADD) == epsilon([SKELLAM], 1e-5, ZERO)


pool = [local(client, number) for client in range(2) for number in range(3)] + [
    summed(number) for number in range(3)
]


@settings(max_examples=15)
@given(order=st.permutations(pool), repeats=st.lists(st.sampled_from(pool), max_size=5))
def test_order_and_repetition_change_nothing(order: list[Release], repeats: list[Release]) -> None:
    once, again = filled(*pool), filled(*order, *repeats)
    assert once.releases == again.releases
    for subject in range(3):
        assert once.histories(EXAMPLE, subject, ZERO) == again.histories(EXAMPLE, subject, ZERO)
        assert once.spent(CLIENT, subject, 1e-5, ZERO) == again.spent(CLIENT, subject, 1e-5, ZERO)


def test_a_key_stands_for_one_release() -> None:
    ledger = filled(local(0, 0))
    with pytest.raises(PrivacyError, match="other content"):
        ledger.record(local(0, 0, GaussianEvent(50.0, 1.0, 4)))
    with pytest.raises(PrivacyError, match="other content"):
        ledger.would_exceed(
            [local(0, 0, GaussianEvent(50.0, 1.0, 4))], Budget(99, 1e-5, EXAMPLE, ADD)
        )
    assert ledger.releases == (local(0, 0),)


@pytest.mark.parametrize("killed_after", ["before", "recorded", "saved"])
def test_a_resumed_round_is_charged_once(killed_after: str, tmp_path: Path) -> None:
    path, budget = tmp_path / "ledger.json", Budget(50, 1e-5, EXAMPLE, ADD)
    ledger = filled(local(0, 0), budget=budget)
    ledger.save(path)
    if killed_after != "before":
        ledger.record(local(0, 1))
    if killed_after == "saved":
        ledger.save(path)
    resumed = PrivacyLedger.load(path)
    resumed.would_exceed([local(0, 1)])
    resumed.record(local(0, 1))
    assert resumed.spent(EXAMPLE, 0, 1e-5, ADD) == epsilon([STEP.times(2)], 1e-5, ADD)


@pytest.mark.parametrize(
    ("release", "budget"),
    [
        (lambda number: local(0, number), Budget(6.0, 1e-5, EXAMPLE, ADD)),
        (
            lambda number: local(0, number, GaussianEvent(1.0, 0.05, 10)),
            Budget(2.5, 1e-5, EXAMPLE, REPLACE),
        ),
        (summed, Budget(3.0, 1e-6, CLIENT, ZERO)),
        (summed, Budget(4.0, 1e-6, EXAMPLE, ADD)),
    ],
)
def test_the_budget_stops_the_round_that_would_pass_it(release: object, budget: Budget) -> None:
    relation = REPLACE if release is summed and budget.unit is EXAMPLE else budget.adjacency
    most = rounds_within(replace(budget, adjacency=relation), [release(0).event])  # type: ignore[operator]
    ledger = filled(*(release(number) for number in range(most - 1)), budget=budget)  # type: ignore[operator]
    ledger.would_exceed([release(most - 1)])  # type: ignore[operator]
    ledger.record(release(most - 1))  # type: ignore[operator]
    with pytest.raises(PrivacyError, match="would pass"):
        ledger.would_exceed([release(most)])  # type: ignore[operator]
    assert len(ledger.releases) == most >= 2
    assert ledger.maximum(budget) <= budget.epsilon
    ledger.would_exceed([release(0)])  # type: ignore[operator] # known already


def test_a_round_is_judged_as_a_whole() -> None:
    one = epsilon([STEP], 1e-5, ADD)
    ledger = PrivacyLedger(Budget(one * 1.01, 1e-5, EXAMPLE, ADD))
    ledger.would_exceed([local(0, 0), local(1, 0)])
    with pytest.raises(PrivacyError, match="client 0"):
        ledger.would_exceed([local(0, 0), local(0, 1)])
    with pytest.raises(PrivacyError, match="there is none"):
        PrivacyLedger().would_exceed([local(0, 0)])


def test_files_come_back_and_leave_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    choice = Release(
        "choice", "cluster", 1, "choice", EXAMPLE, (2, 1, 2), PureEvent(0.1, True, 3), "derived"
    )
    ledger = filled(*pool, choice, budget=Budget(50, 1e-5, EXAMPLE, ADD))
    ledger.save(path)
    ledger.save(path)
    back = PrivacyLedger.load(path)
    assert (back.releases, back.budget) == (ledger.releases, ledger.budget)
    assert choice.subjects == (1, 2)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.json"]
    assert back.verify().ok


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.json"
    filled(local(0, 0)).save(path)
    before = path.read_bytes()

    def fails(_: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(FileError, match=r"ledger.json: cannot be written"):
        filled(local(0, 0), local(0, 1)).save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "field", ["noise_multiplier", "steps", "subjects", "basis", "digest", "budget"]
)
def test_editing_is_found(field: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    filled(local(0, 0), budget=Budget(50, 1e-5, EXAMPLE, ADD)).save(path)
    content = json.loads(path.read_text())
    release = content["releases"][0]
    match field:
        case "digest":
            content["digest"] = "0" * 64
        case "budget":
            content["budget"]["epsilon"] = 1e9
        case "subjects":
            release["subjects"] = [1]
        case "basis":
            release["basis"] = "derived"
        case _:
            release["event"][field] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(PrivacyError, match="changed since"):
        PrivacyLedger.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": "0", "format": 1}', "\x00"])
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with pytest.raises(PrivacyError, match="ledger"):
        PrivacyLedger.load(path)
    with pytest.raises(PrivacyError, match="ledger"):
        PrivacyLedger.load(tmp_path / "none.json")


def forged(path: Path, change: str) -> PrivacyLedger:
    """A file edited by somebody who also writes a fitting digest."""
    content = json.loads(path.read_text())
    content.pop("digest")
    if change == "epsilon":
        content["stated"][0]["epsilon"] *= 0.8
    else:
        content["stated"].pop()
    path.write_text(json.dumps({**content, "digest": digest(content)}))
    return PrivacyLedger.load(path)


@pytest.mark.parametrize("change", ["epsilon", "subject"])
def test_verification_recomputes_from_the_events(change: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    filled(local(0, 0), local(0, 1), summed(0), budget=Budget(50, 1e-5, EXAMPLE, ADD)).save(path)
    honest = PrivacyLedger.load(path).verify()
    assert honest.ok
    assert {row.subject for row in honest.recomputed} == {0, 1, 2}
    assert (honest.declared, honest.derived) == (("pretrain/0/0", "pretrain/1/0"), ("cluster/0",))
    found = forged(path, change).verify()
    assert not found.ok
    assert found.problems


@pytest.mark.parametrize(
    "change",
    [
        {"key": ""},
        {"subjects": ()},
        {"subjects": (-1,)},
        {"round": -1},
        {"basis": "guessed"},
        {"unit": "example!"},
        {"event": None},
    ],
)
def test_releases_check_themselves(change: dict[str, object]) -> None:
    with pytest.raises(PrivacyError, match="release"):
        replace(local(0, 0), **change)  # type: ignore[arg-type]


def table(
    ledger: PrivacyLedger, unit: PrivacyUnit, setting: Setting, **more: int
) -> dict[Adversary, PrivacyClaim]:
    return {claim.adversary: claim for claim in claims(ledger, unit, ZERO, 1e-6, setting, **more)}


def test_local_noise_counts_against_everybody() -> None:
    rows = table(filled(local(0, 0), local(1, 0), local(1, 1)), EXAMPLE, Setting("plain"))
    assert {row.epsilon for row in rows.values()} == {epsilon([STEP.times(2)], 1e-6, ZERO)}
    assert {row.basis for row in rows.values()} == {"declared"}
    assert set(rows) == {Adversary.MODEL, Adversary.SERVER, Adversary.COLLUSION, Adversary.LIAR}
    alone = table(
        filled(local(0, 0), local(1, 0), local(1, 1)), EXAMPLE, Setting("plain"), subject=0
    )
    assert alone[Adversary.SERVER].epsilon == epsilon([STEP], 1e-6, ZERO)


TOGETHER = {Adversary.COLLUSION, Adversary.LIAR}


@pytest.mark.parametrize(
    ("setting", "laid_open"),
    [
        (Setting("plain"), {Adversary.SERVER, *TOGETHER}),
        (Setting("masked", colluders=2, threshold=3), set()),
        (Setting("masked", colluders=3, threshold=3), TOGETHER),
        (Setting("masked", colluders=2, threshold=3, against_a_liar=2), {Adversary.LIAR}),
        (Setting("masked", colluders=1, threshold=3, against_a_liar=2), set()),
        (Setting("bfv+masked", threshold=3), set()),
        (Setting("bfv+masked", colluders=0, threshold=0), set()),
        (Setting("bfv+masked", colluders=3, threshold=3), TOGETHER),
        (Setting("bfv+masked", colluders=3, threshold=3, key_holder="authority"), set()),
    ],
)
def test_who_sees_an_upload_faces_one_share_of_the_noise(
    setting: Setting, laid_open: set[Adversary]
) -> None:
    rows = table(filled(summed(0)), CLIENT, setting)
    sums, share = epsilon([SKELLAM], 1e-6, ZERO), epsilon([SKELLAM.own_share()], 1e-6, ZERO)
    assert {who for who, row in rows.items() if row.epsilon == share} == laid_open
    assert {who for who, row in rows.items() if row.epsilon == sums} == set(rows) - laid_open


def test_claims_say_what_they_rest_on() -> None:
    ledger = filled(local(0, 0, GaussianEvent(1.0, 0.1, 5)), summed(0))
    example, client = (
        table(ledger, unit, Setting("bfv+masked"))[Adversary.SERVER] for unit in (EXAMPLE, CLIENT)
    )
    assert (example.sampling, client.sampling) == (
        "Poisson within each client",
        "none: every round is paid in full",
    )
    assert (example.basis, client.basis) == ("declared", "derived")
    assert any("training" in gap for gap in client.not_covered)
    assert json.loads(json.dumps(document(example)))["adjacency"] == "zero-out"
    with pytest.raises(PrivacyError, match="not added"):
        example + client
    with pytest.raises(PrivacyError, match="no release of this unit"):
        claims(filled(local(0, 0)), CLIENT, ZERO, 1e-6, Setting("bfv+masked"))


def test_settings_are_checked() -> None:
    with pytest.raises(PrivacyError, match="layer"):
        Setting("rot13")  # type: ignore[arg-type]
    with pytest.raises(PrivacyError, match="count"):
        Setting("bfv+masked", colluders=-1)
    with pytest.raises(PrivacyError, match="ε"):
        Budget(float("nan"), 1e-5, EXAMPLE, ADD)
    with pytest.raises(PrivacyError, match="probability"):
        Budget(1.0, 1.0, EXAMPLE, ADD)
