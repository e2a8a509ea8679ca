"""A whole audit, with toys: what is written, what is tried again, and what becomes of a check that
raises, is killed, or cannot be asked.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from audit.suite import toys
from helpers import StopAfter, tiny_config

from secure_fl import Dataset, Federation
from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite import running
from secure_fl.audit.suite.document import read_audit
from secure_fl.audit.suite.listening import Listener
from secure_fl.audit.suite.planning import plan_audit
from secure_fl.audit.suite.running import audit
from secure_fl.config_file import dump_config
from secure_fl.errors import AuditError, RunFolderError
from secure_fl.federation.verify.check import verify
from secure_fl.files import held

SUBJECT = Subject(toys.quick())


def at(*names: str) -> list[str]:
    return [f"audit.suite.toys:{name}" for name in names]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that names the toys that ran."""
    monkeypatch.setenv(toys.CALLS, str(tmp_path / "calls"))
    (tmp_path / "calls").touch()
    return tmp_path / "calls"


class Heard(Listener):
    def __init__(self) -> None:
        self.kept: tuple[str, ...] = ()
        self.began, self.shares, self.ended = list[str](), list[tuple[str, float]](), list[str]()

    def on_plan(self, plan: object, kept: object) -> None:
        self.kept = tuple(kept)  # type: ignore[call-overload]

    def on_begin(self, check: str) -> None:
        self.began.append(check)

    def on_progress(self, check: str, share: float) -> None:
        self.shares.append((check, share))

    def on_outcome(self, outcome: Outcome) -> None:
        self.ended.append(outcome.check)


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_check_ends_in_an_outcome(tmp_path: Path, jobs: int) -> None:
    heard = Heard()
    names = ["HOLDS", "RAISES", "FAILS", "BREAKS", "NAN", "NOT_HERE", "UNPLANNED"]
    names += ["DIES"] if jobs > 1 else []
    (tmp_path / "c.toml").write_text(dump_config(toys.quick()))
    made = audit(
        SUBJECT, tmp_path / "out", jobs=jobs, path=tmp_path / "c.toml", seed=4,
        addresses=at(*names), listener=heard,
    )  # fmt: skip
    assert made == read_audit(tmp_path / "out")
    found = {outcome.check: outcome for outcome in made.outcomes}
    said = {name: outcome.verdict for name, outcome in found.items()}
    stopped = dict.fromkeys(["raises", "fails", "nan", "unplanned"], "not tried")
    stopped |= {"dies": "not tried"} if jobs > 1 else {}
    assert said == {"holds": "held", "breaks": "broken", **stopped}
    assert list(found) == [name.lower() for name in names if name != "NOT_HERE"]
    assert made.verdict == "broken"
    assert found["holds"].said == "seen at seed 4"
    assert "the plan has no noise" in found["raises"].said
    assert "ValueError at toys.py:" in found["fails"].said
    assert "no noise is enough" in found["unplanned"].said
    assert "SECRET" not in (tmp_path / "out" / "audit.json").read_text(), "values stay away"
    if jobs > 1:
        assert "exit status -9" in found["dies"].said
    assert [(each.check, each.why) for each in made.refused] == [("not-here", "there are no pools")]
    assert sorted(heard.ended) == sorted(heard.began) == sorted(found)
    assert ("holds", 0.5) in heard.shares


def test_an_interrupted_audit_goes_on(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go() -> None:
        audit(SUBJECT, tmp_path, addresses=at("HOLDS", "RAISES", "INTERRUPTED", "NAPS"))

    with pytest.raises(KeyboardInterrupt):
        go()
    assert read_audit(tmp_path) is None
    monkeypatch.setenv("SECURE_FL_TOY_GO_ON", "1")
    go()
    ran = calls.read_text().split()
    assert ran == ["holds", "raises", "interrupted", "raises", "interrupted", "naps"], (
        "what was not tried is tried again, what held is not"
    )
    assert read_audit(tmp_path) is not None


@pytest.mark.parametrize(
    "change", ["seed", "depth", "configuration", "version", "code", "damaged", "renamed"]
)
def test_another_audit_begins_anew(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    heard, subject, depth, seed = Heard(), SUBJECT, Depth.MINUTES, 0
    audit(subject, tmp_path, addresses=at("HOLDS"))
    file = tmp_path / "audit" / "holds-minutes-0.json"
    if change == "seed":
        seed = 1
    elif change == "depth":
        depth = Depth.HOUR
    elif change == "configuration":
        subject = Subject(tiny_config(pretrain={"rounds": 3}))
    elif change == "version":
        monkeypatch.setattr(running, "__version__", "9.9")
    elif change == "code":
        monkeypatch.setattr(running, "code_digest", lambda: "other")
    elif change == "damaged":
        file.write_text(file.read_text()[:-20])
    else:
        file.write_text(file.read_text().replace("example", "client", 1))
    audit(subject, tmp_path, depth=depth, seed=seed, addresses=at("HOLDS"), listener=heard)
    again = 1 if change == "renamed" else 2
    assert len(calls.read_text().split()) == again
    assert heard.kept == (("holds",) if again == 1 else ())


def test_only_some_are_tried_and_the_others_say_what_they_said(tmp_path: Path) -> None:
    addresses = at("HOLDS", "BREAKS", "NAPS")
    made = audit(SUBJECT, tmp_path, only=["holds"], addresses=addresses)
    assert [outcome.check for outcome in made.outcomes] == ["holds"]
    assert (made.verdict, made.left_out) == ("held", ("breaks", "naps"))
    made = audit(SUBJECT, tmp_path, only=["breaks"], addresses=addresses)
    assert [outcome.check for outcome in made.outcomes] == ["holds", "breaks"]
    assert (made.verdict, made.left_out) == ("broken", ("naps",))
    with pytest.raises(AuditError, match="breaks, holds, naps"):
        audit(SUBJECT, tmp_path, only=["hold"], addresses=addresses)


def test_the_estimate_comes_first(tmp_path: Path) -> None:
    plan = plan_audit(SUBJECT, Depth.MINUTES, addresses=at("HOLDS", "NAPS", "NOT_HERE", "SLOW"))
    assert plan.seconds(1) == 902
    assert plan.seconds(2) == 900, "the longest goes on alone"
    assert not plan.is_quick
    quick = plan_audit(SUBJECT, Depth.MINUTES, ["holds"], addresses=at("HOLDS", "SLOW"))
    assert quick.is_quick
    assert quick.seconds(2) == 1
    assert plan_audit(SUBJECT, Depth.MINUTES, addresses=[]).seconds(2) == 0


def test_a_place_is_needed_and_held(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="--out"):
        audit(SUBJECT, addresses=at("HOLDS"))
    silent = Subject(tiny_config(evaluate={"enabled": False}), tmp_path / "run")
    with pytest.raises(AuditError, match="only its experimenter may read"):
        audit(silent, addresses=at("HOLDS"))
    with pytest.raises(AuditError, match="within the run's folder"):
        audit(silent, tmp_path / "run" / "there", addresses=at("HOLDS"))
    (tmp_path / "audit").mkdir()
    with held(tmp_path / "audit"), pytest.raises(RunFolderError, match="in use"):
        audit(SUBJECT, tmp_path, addresses=at("HOLDS"))


def test_processes_take_nothing_of_the_callers(tmp_path: Path, images: Dataset) -> None:
    own = replace(SUBJECT, data=images)
    with pytest.raises(AuditError, match="jobs=1"):
        audit(own, tmp_path, jobs=2, path=tmp_path, addresses=at("HOLDS"))


def test_an_audited_run_still_verifies_and_can_be_made_longer(
    tmp_path: Path, images: Dataset
) -> None:
    folder, config = tmp_path / "run", toys.quick()
    Federation(config, data=images).run(folder)
    made = audit(Subject.of(folder), addresses=at("HOLDS", "READS"))
    assert [outcome.verdict for outcome in made.outcomes] == ["held", "held"]
    assert made.is_of(folder)
    found = verify(folder)
    assert found.ok
    assert {"audit.json", "audit/*"} <= set(found.uncovered)
    (folder / "audit" / "holds-minutes-0.json").write_text("edited")
    assert verify(folder).ok, "no digest of the run's covers it"
    sealed = (folder / "audit.json").read_text()
    assert ("audit", f"its seal, {made.seal}") in verify(folder).checked
    (folder / "audit.json").write_text(sealed.replace('"seed": 0', '"seed": 1'))
    assert [found.file for found in verify(folder).findings] == ["audit.json"]
    (folder / "audit.json").write_text(sealed)
    longer = tiny_config(
        pretrain={"rounds": 2}, pools={"enabled": False}, evaluate={"probe_epochs": 1}
    )
    Federation(longer, data=images).run(folder, resume=True)
    assert verify(folder).ok
    ended = json.loads((folder / "digests.json").read_text())["files"]
    assert not any(name.startswith("audit") for name in ended)
    read = read_audit(folder)
    assert read is not None
    assert not read.is_of(folder), "it tells of the run as it was"


def test_a_run_that_has_not_ended_is_refused(tmp_path: Path, images: Dataset) -> None:
    with pytest.raises(KeyboardInterrupt):
        Federation(tiny_config(), data=images, callbacks=[StopAfter(1)]).run(tmp_path / "run")
    with pytest.raises(RunFolderError, match="not finished"):
        audit(Subject.of(tmp_path / "run"), addresses=at("HOLDS"))
    assert not (tmp_path / "run" / "audit").exists()


def test_nothing_is_written_into_a_folder_that_leaves_audits_out(
    tmp_path: Path, images: Dataset
) -> None:
    config = toys.quick().model_copy(update={"name": "other"})
    Federation(config, data=images).run(tmp_path / "other", progress=False)
    silent = Subject(tiny_config(evaluate={"enabled": False}), tmp_path / "run")
    with pytest.raises(AuditError, match="only its experimenter may read"):
        audit(silent, tmp_path / "x" / ".." / "run", addresses=at("HOLDS"))
    with pytest.raises(AuditError, match="of another run"):
        audit(SUBJECT, tmp_path / "other", addresses=at("HOLDS"))
    assert not (tmp_path / "other" / "audit.json").exists()


def test_a_run_that_changes_meanwhile_is_said_and_nothing_of_it_is_kept(
    tmp_path: Path, images: Dataset
) -> None:
    folder = tmp_path / "run"
    Federation(toys.quick(), data=images).run(folder, progress=False)

    class Changes(Listener):
        def on_begin(self, check: str) -> None:
            if check == "naps":
                with (folder / "metrics.jsonl").open("a") as file:
                    file.write("\n")

    with pytest.raises(AuditError, match="changed while it was audited"):
        audit(Subject.of(folder, data=images), addresses=at("HOLDS", "NAPS"), listener=Changes())
    assert not (folder / "audit.json").exists()
    assert [file.name for file in (folder / "audit").glob("*.json")] == ["holds-minutes-0.json"]


@pytest.mark.parametrize("seed", [-1, 1 << 32, 10**40, True])
def test_a_seed_that_no_generator_takes_is_refused_first(tmp_path: Path, seed: int) -> None:
    with pytest.raises(AuditError, match="is no seed"):
        audit(SUBJECT, tmp_path / "there", seed=seed, addresses=at("HOLDS"))
    assert not (tmp_path / "there").exists()
