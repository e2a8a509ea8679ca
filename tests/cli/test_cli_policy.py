"""A site's policy on the command line."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import Command

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster

PLAN = """
[data]
[[data.sources]]
name = "digits"
[evaluate]
enabled = false
[pretrain]
rounds = 2
[pools]
rounds = 2
[privacy]
unit = "example"
epsilon = 4.0
"""


def test_from_a_policy_to_a_verdict(tmp_path: Path, command: Command) -> None:
    assert "policy check" in command("policy", "init", cwd=tmp_path).stdout
    assert "exists" in command("policy", "init", cwd=tmp_path, code=2).stderr
    command("policy", "init", "policy.toml", "--force", cwd=tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    accepted = command("policy", "check", "plan.toml", cwd=tmp_path).stdout
    assert "accepted" in accepted
    assert "not checked" in accepted
    assert "study.begin" in accepted
    (tmp_path / "strict.toml").write_text("[privacy]\nepsilon = 3\n[study]\nend = 2020-01-01\n")
    check = ("policy", "check", "plan.toml", "--policy", "strict.toml")
    refused = command(*check, cwd=tmp_path, code=1)
    assert "refused for privacy.epsilon, study.end" in refused.stderr
    assert "at most 3" in refused.stdout
    assert "too-late" in refused.stdout


def test_who_is_refused_learns_which_setting_of_the_plan_to_change(
    tmp_path: Path, command: Command
) -> None:
    """Metrics are on by default, and no site makes them for others by default."""
    command("policy", "init", cwd=tmp_path)
    assert "enabled = false" in PLAN
    (tmp_path / "plan.toml").write_text(PLAN.replace("enabled = false", "enabled = true"))
    refused = command("policy", "check", "plan.toml", cwd=tmp_path, code=1).stderr
    said = " ".join(refused.split())
    assert "privacy.metrics is about the plan's evaluate.enabled" in said
    assert "or allow it in policy.toml" in said


def test_a_plans_own_word_on_epsilon_is_not_taken(tmp_path: Path, command: Command) -> None:
    command("policy", "init", cwd=tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN + "noise = 1.0\n")
    check = ("policy", "check", "plan.toml")
    unknown = command(*check, cwd=tmp_path, code=1)
    assert "pass --examples" in unknown.stderr
    assert (
        "refused for privacy.epsilon"
        in command(*check, "--examples", 100, cwd=tmp_path, code=1).stderr
    )


def test_mistakes_are_told_from_refusals(tmp_path: Path, command: Command) -> None:
    check = ("policy", "check", "plan.toml")
    (tmp_path / "plan.toml").write_text(PLAN.replace('"digits"', '"npz"\npath = "x.npz"'))
    assert "policy init" in command(*check, cwd=tmp_path, code=2).stderr
    (tmp_path / "policy.toml").write_text("")
    assert "--clients" in command(*check, cwd=tmp_path, code=2).stderr
    assert "accepted" in command(*check, "--clients", 12, cwd=tmp_path).stdout, "no data is there"
    assert "clients a round" in command(*check, "--clients", 4, cwd=tmp_path, code=2).stderr
    shape = ("--clients", 12, "--shape", "1x²")
    assert "not a shape" in command(*check, *shape, cwd=tmp_path, code=2).stderr
    assert "pass both" in command(*check, "--roster", "r", cwd=tmp_path, code=2).stderr


def test_a_rosters_clients_and_digest_are_judged(tmp_path: Path, command: Command) -> None:
    boss = Identity.generate("boss", "coordinator")
    members = tuple(Identity.generate(f"site-{number}").member for number in range(9))
    roster = Roster("study", members, revision=2)
    (tmp_path / "boss.card").write_bytes(boss.card())
    (tmp_path / "roster.json").write_bytes(roster.sign(boss))
    (tmp_path / "plan.toml").write_text(PLAN)
    check = ("policy", "check", "plan.toml", "--roster", "roster.json", "--signed-by", "boss.card")
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[study]\nroster_digest = "{"ab" * 32}"\nroster_revision = 3\n')
    refused = command(*check, cwd=tmp_path, code=1).stderr
    assert "refused for study.roster_revision, study.roster_digest" in refused
    study = f'[study]\nroster_digest = "{roster.digest.hex()}"\nroster_revision = 2\n'
    policy.write_text(study + "[sums]\ncohort = 9\n")
    command(*check, cwd=tmp_path)
    command(*check, "--clients", 12, cwd=tmp_path, code=2)
    assert "pass --roster" in command(*check[:3], cwd=tmp_path, code=1).stderr
