"""A site on the command line: from a table of its own to a run, and every wrong turn on the way."""

from __future__ import annotations

import csv
import json
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from deployment.site.old_certificates import expired, of_days
from deployment.site.three_sites import POLICY, free_port

from secure_fl.config import FederationConfig
from secure_fl.config_file import dump_config
from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.planning import Study
from secure_fl.deployment.settings import Deployment
from secure_fl.deployment.site import checking
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.files import held

pytest.importorskip("pyarrow")
pytest.importorskip("grpc")
WARDS = ("ward-a", "ward-b")
SITES = ("north", "south", "west")
CANARY = "quokka"

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in this process; what it printed, on one line."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what typer is made with
        from secure_fl.cli.main import main

    def call(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["secure-fl", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        text = " ".join((shown.out + shown.err).split())
        assert (ended.value.code or 0) == code, text
        assert "Traceback" not in text
        return text

    return call


def write_table(path: Path, seed: int) -> Path:
    """Stays of patients, by ward; a column that nobody asks for holds a word of its own."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["stay", "ward", "age", "dose", "outcome", "note"])
        for number in range(48):
            value = (seed + 37 * number) % 101
            ward, outcome = WARDS[number % 2], ("well", "ill")[number % 4 // 2]
            rows.writerow([f"{CANARY}-{number}", ward, value, value / 7, outcome, CANARY])
    return path


def config() -> FederationConfig:
    source = {"name": "csv", "path": "stays.csv", "label": "outcome"}
    return FederationConfig(
        data={
            "sources": [source | {"features": ["age", "dose"]}],
            "class_names": ["ill", "well"],
            "column_means": [50.0, 7.0],
            "column_deviations": [29.0, 4.0],
        },
        partition={"kind": "natural"},
        privacy={"unit": "example", "noise": 2.0, "epsilon": 60.0},
        pretrain={"rounds": 1, "batch_size": 16},
        pools={"rounds": 1, "count": 2, "warmup_rounds": 0, "batch_size": 16},
        evaluate={"enabled": False},
    )


def init(run: Run, root: Path, name: str, **more: object) -> str:
    data = write_table(root / f"{name}.csv", SITES.index(name))
    named = {
        "--data": data,
        "--label": "outcome",
        "--clients-by": "ward",
        "--group": "stay",
        **more,
    }
    words = [word for pair in named.items() for word in pair if word != ""]
    return run("site", "init", root / name, "--name", name, *words)


@pytest.fixture
def coordinator(tmp_path: Path, run: Run) -> Coordinator:
    """With three sites that it has signed, none of which has joined."""
    server = {"host": "localhost", "port": free_port(), "bind": "127.0.0.1"}
    settings = Deployment(launch="direct", server=server)
    made = Coordinator.new(tmp_path / "federation", settings, config(), Study())
    (tmp_path / "plan.toml").write_text(dump_config(config()))
    for name in SITES:
        said = init(run, tmp_path, name, **{"--config": tmp_path / "plan.toml"})
        assert re.search("fingerprint [0-9a-f]{64}", said)
        assert f"{name}.ward-a, {name}.ward-b" in said
        assert "examples of shape (2,), 2 classes" in said
        (tmp_path / name / "policy.toml").write_text(POLICY)
    cards = [(tmp_path / name / "key-card").read_bytes() for name in SITES]
    made.publish(made.draft(cards))
    return made


def join(run: Run, root: Path, made: Coordinator, *more: str, code: int = 0) -> str:
    where = root / "north", made.invitation_of("north")
    fingerprint = made.identity.member.fingerprint
    return run("site", "join", *where, "--coordinator", fingerprint, *more, code=code)


def test_from_a_table_to_a_site_that_is_ready(
    tmp_path: Path, run: Run, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "north"
    assert "has not joined" in run("site", "check", site, code=2)
    assert "has not joined" in run("site", "run", site, code=2)
    said = join(run, tmp_path, coordinator)
    assert "pinned plan" in said
    assert "pinned roster" in said
    shown = run("site", "check", site, "--no-reach", "--bandwidth", "20")
    assert "ready: `secure-fl site run` can begin" in shown
    assert "never ran" in run("site", "status", site, code=4)
    monkeypatch.setattr(checking, "costs", lambda *_: iter(()))
    unreachable = run("site", "check", site, code=1)
    assert "let this machine out to TCP" in unreachable
    assert CANARY not in said + shown + unreachable


def test_means_that_are_not_one_a_column_are_refused_before_keys_are_made(
    tmp_path: Path, run: Run
) -> None:
    numbers = {"column_means": (50.0,), "column_deviations": (29.0,)}
    other = config().model_copy(update={"data": config().data.model_copy(update=numbers)})
    (tmp_path / "plan.toml").write_text(dump_config(other))
    data = write_table(tmp_path / "north.csv", 0)
    where = (tmp_path / "north", "--name", "north", "--data", data, "--clients-by", "ward")
    said = run(
        "site", "init", *where, "--label", "outcome", "--config", tmp_path / "plan.toml", code=2
    )
    assert "1 means and deviations for examples of shape (2,)" in said
    assert not (tmp_path / "north").exists()


def test_a_run_gives_up_refuses_and_is_looked_at(
    tmp_path: Path, run: Run, coordinator: Coordinator
) -> None:
    site = tmp_path / "north"
    join(run, tmp_path, coordinator)
    text = (site / "site.toml").read_text()
    (site / "site.toml").write_text(text.replace("# patience =", "patience = 0.3"))
    folder = SiteFolder.open(site)
    folder.tls.certificate.write_bytes(of_days(coordinator, folder, -1, 9.5))
    said = run("site", "run", site, code=4)
    assert "no way to the server for 0.3 s" in said
    assert "certificate-ends kind=own days=9" in said
    assert "unreachable" in run("site", "status", site, code=4)
    with held(site):
        assert "in use by process" in run("site", "run", site, code=2)
        shown = run("site", "status", site)
        assert "north: running" in shown
        assert "north.ward-a, north.ward-b" in shown
    pins = (site / "pins.toml").read_text()
    (site / "pins.toml").write_text(re.sub("plan = .*", "", pins))
    assert "is not pinned" in run("site", "run", site, code=1)
    facts = json.loads((site / "status.json").read_text())
    assert facts["state"] == "refused"
    assert CANARY not in said + json.dumps(facts)


def test_wrong_turns_of_joining(tmp_path: Path, run: Run, coordinator: Coordinator) -> None:
    site, own = tmp_path / "north", coordinator.invitation_of("north")
    other = coordinator.invitation_of("south")
    fingerprint = coordinator.identity.member.fingerprint
    assert "nobody has confirmed" in run("site", "join", site, own, code=1)
    wrong = run("site", "join", site, own, "--coordinator", "0" * 64, code=1)
    assert "is signed by" in wrong
    assert "for another site" in run(
        "site", "join", site, other, "--coordinator", fingerprint, code=1
    )
    (tmp_path / "torn").write_bytes(own.read_bytes()[:-9])
    assert "malformed" in run(
        "site", "join", site, tmp_path / "torn", "--coordinator", fingerprint, code=2
    )
    gone = run("site", "join", site, tmp_path / "gone", code=2)
    assert "cannot be read" in gone
    assert not SiteFolder(site).joined


def test_wrong_turns_of_a_folder(tmp_path: Path, run: Run, coordinator: Coordinator) -> None:
    site = tmp_path / "north"
    join(run, tmp_path, coordinator)
    assert "holds no site" in run("site", "status", tmp_path, code=2)
    site.chmod(0o755)
    assert "chmod 700" in run("site", "run", site, code=2)
    site.chmod(0o700)
    key = site / "tls" / "site.key"
    key.chmod(0o640)
    assert "chmod 600" in run("site", "check", site, code=2)
    key.chmod(0o600)
    folder = SiteFolder.open(site)
    folder.tls.certificate.write_bytes(expired(coordinator, folder))
    assert "`secure-fl site renew" in run("site", "run", site, code=1)
    assert "ran out" in run("site", "check", site, "--no-reach", code=1)
    folder.settings_file.write_text(folder.settings_file.read_text().replace("north.csv", "x.csv"))
    join(run, tmp_path, coordinator)
    assert "no such file" in run("site", "run", site, code=2)


def test_a_renewed_certificate_by_commands(
    tmp_path: Path, run: Run, coordinator: Coordinator
) -> None:
    site = tmp_path / "north"
    join(run, tmp_path, coordinator)
    before = (site / "tls" / "site.pem").read_bytes()
    assert re.search("fingerprint [0-9a-f]{64}", run("site", "renew", site))
    coordinator.renew_site("north", (site / "key-card").read_bytes())
    assert "pinned" not in run("site", "join", site, coordinator.invitation_of("north"))
    assert (site / "tls" / "site.pem").read_bytes() != before
    with held(site):
        said = run("site", "join", site, coordinator.invitation_of("north"))
        assert "takes the certificate up by itself, nothing else" in said
        coordinator.publish(coordinator.draft(again=True))
        said = run("site", "join", site, coordinator.invitation_of("north"), "--replace")
        assert "goes on under the plan that it began with" in said
    assert "next: `secure-fl site check" in run(
        "site", "join", site, coordinator.invitation_of("north")
    )


def test_wrong_turns_of_making(tmp_path: Path, run: Run) -> None:
    data = write_table(tmp_path / "t.csv", 0)
    new = ("site", "init", tmp_path / "site", "--name", "north")
    assert "without data" in run(*new, code=2)
    assert "no such file" in run(*new, "--data", tmp_path / "gone.csv", code=2)
    assert "both are given" in run(
        *new, "--data", data, "--client", "a", "--clients-by", "b", code=2
    )
    assert "nothing says who holds what" in run(*new, "--data", data, code=1)
    assert "should match" in run(
        "site", "init", tmp_path / "s", "--name", "a b", "--data", data, code=2
    )
    assert not (tmp_path / "site").exists()
    whole = run(*new, "--data", data, "--client", "north", "--label", "outcome")
    assert "north; everybody" in whole
    assert "already holds" in run(*new, "--data", data, "--client", "north", code=2)
    holder = run("site", "init", tmp_path / "h", "--name", "holder", "--role", "authority")
    assert "holder; everybody" in holder
