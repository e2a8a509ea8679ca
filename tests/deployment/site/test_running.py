"""Three sites as processes of their own, and a server: to the end, over kills; and all that a site
refuses before.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deployment.made_sites import small_config
from deployment.site.old_certificates import expired, of_days
from deployment.site.site_process import SiteProcess, wait_until
from deployment.site.three_sites import Made3, Serving, make_three

import secure_fl
from secure_fl.deployment.site import ways
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.joining import join
from secure_fl.deployment.site.parties import SiteParties
from secure_fl.deployment.site.running import run_site
from secure_fl.deployment.site.status import running, status_of
from secure_fl.deployment.site.ways import Outcome
from secure_fl.errors import DeploymentError, RunFolderError
from secure_fl.files import held
from secure_fl.finished.assign import assign_pool

CANARY = "canary-7f3a"
pytest.importorskip("grpc")
pytestmark = pytest.mark.timeout(900)


def plant(path: Path) -> list[bytes]:
    """A word beside every example of a file, and what else must never be seen outside of it."""
    arrays = dict(np.load(path))
    group = [f"{CANARY}-{number}" for number in range(len(arrays["x"]))]
    np.savez(path, **arrays, group=np.asarray(group))
    values = arrays["x"][:, 0, 0, 0]
    return [
        CANARY.encode(),
        arrays["x"][0].tobytes()[:32],
        *(repr(float(one)).encode() for one in values[:9]),
    ]


def round_of(folder: SiteFolder) -> int:
    facts = json.loads(folder.status.read_text()) if folder.status.exists() else {}
    return facts.get("round") or 0


@pytest.fixture
def processes() -> Iterator[dict[str, SiteProcess]]:
    found: dict[str, SiteProcess] = {}
    yield found
    for process in found.values():
        process.end()


@pytest.mark.slow
def test_three_sites_over_kills_of_everybody(
    tmp_path: Path, processes: dict[str, SiteProcess]
) -> None:
    made = make_three(tmp_path)
    secret = [each for name in made.sites for each in plant(tmp_path / f"{name}.npz")]
    first, second, third = (made.folder(name) for name in made.sites)
    with Serving(made):
        for name in made.sites:
            processes[name] = SiteProcess(tmp_path / name)
        wait_until(lambda: round_of(first) >= 1)
        processes["hospital-1"].kill()
        processes["hospital-1"].start()
        wait_until(lambda: round_of(second) >= 2)
        processes["hospital-3"].process.send_signal(signal.SIGTERM)
        assert processes["hospital-3"].wait(120) == 143
        assert status_of(third)[1]["state"] == "stopped"
        processes["hospital-3"].start()
    with Serving(made) as serving:  # it was ended, and goes on
        with pytest.raises(RunFolderError, match="in use"):
            run_site(SiteFolder(second.path))
        assert serving.wait(300) == ""
        assert [each.wait(120) for each in processes.values()] == [0, 0, 0]
    check_results(made, [each.said for each in processes.values()], secret)


def check_results(made: Made3, said: list[str], secret: list[bytes]) -> None:
    folders = [made.folder(name) for name in made.sites]
    models = {(each.model / "model" / "pools.safetensors").read_bytes() for each in folders}
    assert len(models) == 1
    for folder, words in zip(folders, said, strict=True):
        assert "come to its end" in words
        facts = json.loads(folder.status.read_text())
        assert (facts["state"], facts["site"]) == ("finished", folder.name)
        own = json.loads(folder.result.read_text())
        assert set(own["clients"]) == {f"{folder.name}.person-01", f"{folder.name}.person-02"}
        assert all(score["pool"] in (0, 1) for score in own["clients"].values())
        seen = [folder.status.read_bytes(), folder.result.read_bytes(), words.encode()]
        assert not [one for one in secret for text in seen if one in text]
    loaded, data = secure_fl.load_result(folders[0].model), made.root / "hospital-1.npz"
    assert len(loaded.pools) == 2
    assert assign_pool(folders[0].model, data).pool in (0, 1)
    assert loaded.predict(np.load(data)["x"], pool=0).shape == (72,)
    assert not running(folders[0])
    shown = [path.read_bytes() for path in made.coordinator.server.rglob("*") if path.is_file()]
    assert not [one for one in secret for text in shown if one in text]


@pytest.mark.slow
def test_the_key_holder_is_a_site_of_its_own(
    tmp_path: Path, processes: dict[str, SiteProcess]
) -> None:
    made = make_three(tmp_path, small_config(security={"key_holder": "authority"}))
    both = '[privacy]\nepsilon = 80.0\n[sums]\nkey_holder = ["authority"]\n'
    with Serving(made) as serving:
        for name in made.sites:
            made.folder(name).policy_file.write_text(both)
            processes[name] = SiteProcess(tmp_path / name)
        wait_until(lambda: round_of(made.folder("holder")) >= 1)
        processes["holder"].kill()
        processes["holder"].start()
        assert serving.wait(300) == ""
        assert [each.wait(120) for each in processes.values()] == [0, 0, 0, 0]
    assert (tmp_path / "hospital-1" / "result.json").exists()
    assert not (tmp_path / "holder" / "model").exists()


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return SiteFolder.open(make_three(tmp_path).folder("hospital-1").path)


def test_a_refusal_by_policy_is_told_to_the_server_and_ends_the_site(tmp_path: Path) -> None:
    made = make_three(tmp_path)
    folder = made.folder("hospital-1")
    folder.policy_file.write_text("[privacy]\nepsilon = 1.0\n")
    with Serving(made) as serving:
        outcome = run_site(SiteFolder.open(folder.path))
        party = serving.folder.record / "transcript.jsonl"
        wait_until(lambda: b"against-policy" in party.read_bytes())
    assert outcome.word == "refused"
    assert "privacy.epsilon: 60 asked, at most 1 allowed [too-large]" in outcome.reason
    assert status_of(folder)[1]["reason"] == outcome.reason


def test_what_is_not_pinned_is_refused_before_anything_runs(folder: SiteFolder) -> None:
    pins = folder.pins
    for changed in ({"plan": "0" * 64}, {"roster": "0" * 64}, {"plan": None}):
        folder.pins_file.write_text(pins.model_copy(update=changed).text())
        outcome = run_site(folder)
        assert outcome.word == "refused"
        assert "is not pinned" in outcome.reason
    assert not folder.parties.exists()


def test_a_plan_whose_first_models_are_others_is_refused(tmp_path: Path) -> None:
    made = make_three(tmp_path)
    folder, coordinator = SiteFolder.open(made.folder("hospital-1").path), made.coordinator
    invitation, roster, plan = folder.federation()
    other = replace(plan, start=bytes(32))
    changed = replace(invitation, plan=other.sign(coordinator.identity, roster))
    data = changed.sign(coordinator.identity)
    join(folder, data, replace=True)
    (coordinator.server / "plan").write_bytes(changed.plan)
    with Serving(made):
        outcome = run_site(folder)
    assert outcome == Outcome("refused", "the plan, for other-start")
    told = status_of(folder)[1]
    assert (told["state"], told["received"]["messages"] >= 2) == ("refused", True)
    assert told["sent"]["bytes"] > told["sent"]["messages"] > 0


def test_a_server_that_shows_another_plan_is_refused(tmp_path: Path) -> None:
    """The pins are read when a plan comes: whatever was stored, and whoever signed."""
    from secure_fl.deployment.site.parties import SiteParties

    folder = SiteFolder.open(make_three(tmp_path).folder("hospital-1").path)
    _, roster, plan = folder.federation()
    parties = SiteParties(folder, roster, plan)
    try:
        other = replace(plan, first_day="2026-01-01")
        judge = parties.hosted[0].party._site.judge
        assert judge(plan) is None
        assert "is not pinned" in (judge(other) or "")
        assert parties.objections
    finally:
        parties.close()


def test_a_certificate_that_has_run_out_is_refused(tmp_path: Path) -> None:
    made = make_three(tmp_path)
    folder = SiteFolder.open(made.folder("hospital-1").path)
    folder.tls.certificate.write_bytes(expired(made.coordinator, folder))
    with pytest.raises(DeploymentError, match="has run out"):
        run_site(folder)


def test_the_days_of_a_certificate_are_in_the_status(tmp_path: Path) -> None:
    made = make_three(tmp_path)
    folder = SiteFolder.open(made.folder("hospital-1").path)
    folder.tls.certificate.write_bytes(of_days(made.coordinator, folder, -1, 9.5))
    stops = iter([False, False, True])
    assert run_site(folder, stop=lambda: next(stops, True)).word == "stopped"
    assert json.loads(folder.status.read_text())["certificate_days"] == 9


def test_a_site_gives_up_where_it_is_told_to(folder: SiteFolder) -> None:
    text = folder.settings_file.read_text()
    folder.settings_file.write_text(text.replace("# patience =", "patience = 0.5"))
    outcome = run_site(SiteFolder.open(folder.path))
    assert outcome == Outcome("unreachable", "no way to the server for 0.5 s")


def test_a_site_that_runs_for_ever_takes_the_next_invitation(tmp_path: Path) -> None:
    made = make_three(tmp_path)
    folder = SiteFolder.open(made.folder("hospital-1").path)
    text = folder.settings_file.read_text()
    folder.settings_file.write_text(text.replace("# patience =", "patience = 0.3"))
    folder.pins_file.write_text(folder.pins.model_copy(update={"plan": None}).text())
    asked = list[str]()

    def stop() -> bool:
        """Asked first when the site has refused: the coordinator sends another invitation."""
        if not asked:
            asked.append(json.loads(folder.status.read_text())["state"])
            made.sign(again=True)
            join(folder, made.invitation("hospital-1").read_bytes(), replace=True)
        return False

    outcome = run_site(SiteFolder.open(folder.path), stop=stop, forever=True)
    assert (asked, outcome.word) == (["refused"], "unreachable")


def test_an_invitation_that_came_before_the_end_is_taken_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a successor's is joined while the federation before still runs here."""
    made, plans = make_three(tmp_path), list[bytes]()
    folder = SiteFolder.open(made.folder("hospital-1").path)

    def one(folder: SiteFolder, *_: object) -> Outcome:
        plans.append(folder.federation()[2].digest)
        if len(plans) == 1:
            made.sign(again=True)
            join(folder, made.invitation(folder.name).read_bytes(), replace=True)
            return Outcome("failed", "ended-early")
        return Outcome("stopped")

    monkeypatch.setattr("secure_fl.deployment.site.running._one", one)
    stops = iter([False, True])
    run_site(folder, stop=lambda: next(stops), forever=True)
    assert len(set(plans)) == 2


def test_a_second_run_and_a_look_at_the_first(folder: SiteFolder) -> None:
    assert status_of(folder) == (False, {"state": "never ran"})
    with held(folder.path):
        assert running(folder)
        with pytest.raises(RunFolderError, match="in use"):
            run_site(folder)
    assert not running(folder)


def test_data_of_another_shape_and_missing_data_are_refused(folder: SiteFolder) -> None:
    path = Path(folder.settings.data.sources[0].path or "")
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"x": arrays["x"][:, :, :6]})
    with pytest.raises(DeploymentError, match="of shape"):
        run_site(folder)
    path.unlink()
    with pytest.raises(secure_fl.errors.DataError, match="no such file"):
        run_site(folder)


def test_a_server_that_lies_takes_no_more_memory_than_the_plan_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever length it announces; nothing is built for a plan that the policy refuses."""
    folder = SiteFolder.open(make_three(tmp_path).folder("hospital-1").path)
    invitation, roster, plan = folder.federation()
    most = list[int]()
    monkeypatch.setattr(ways, "session_link", lambda *told: most.append(told[-1]))
    run_site(folder, stop=lambda: True)
    assert most[0] % (1 << 20) == 0
    assert plan.largest_state < most[0] < 1 << 28
    refused = SiteParties(folder, roster, plan)
    try:
        monkeypatch.setattr(SiteParties, "_allowed", lambda *_: "no")
        monkeypatch.setattr(SiteParties, "program", lambda *_: pytest.fail("was built"))
        assert plan.largest_state < refused.longest(invitation.plan) <= most[0]
    finally:
        refused.close()
