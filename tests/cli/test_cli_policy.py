"""A site's policy on the command line."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import Command

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
    (tmp_path / "plan.toml").write_text(
        PLAN.replace("digits", "npz").replace("[[", "classes = 2\n[[")
    )
    assert "policy init" in command(*check, cwd=tmp_path, code=2).stderr
    command("policy", "init", cwd=tmp_path)
    assert "--clients" in command(*check, cwd=tmp_path, code=2).stderr
    assert "accepted" in command(*check, "--clients", 12, cwd=tmp_path).stdout
    assert "clients a round" in command(*check, "--clients", 4, cwd=tmp_path, code=2).stderr
    assert (
        "not a shape"
        in command(*check, "--clients", 12, "--shape", "a", cwd=tmp_path, code=2).stderr
    )
    assert "pass both" in command(*check, "--roster", "r", cwd=tmp_path, code=2).stderr
    (tmp_path / "policy.toml").write_text("[privacy]\nepsilom = 1\n")
    assert "epsilon" in command(*check, "--clients", 12, cwd=tmp_path, code=2).stderr


def test_a_rosters_clients_and_digest_are_judged(tmp_path: Path, command: Command) -> None:
    command("keys", "new", "boss", "--role", "coordinator", cwd=tmp_path)
    cards = []
    for number in range(9):
        command("keys", "new", f"site-{number}", cwd=tmp_path)
        cards.append(f"keys/site-{number}.card")
    made = command(
        "keys", "roster", "roster.json", *cards, "--as", "keys/boss.identity", cwd=tmp_path
    )
    digest = made.stdout.split("digest ")[1].split()[0]
    (tmp_path / "plan.toml").write_text(PLAN)
    check = ("policy", "check", "plan.toml", "--roster", "roster.json")
    check = (*check, "--signed-by", "keys/boss.card")
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[study]\nroster_digest = "{"ab" * 32}"\nroster_revision = 3\n')
    refused = command(*check, cwd=tmp_path, code=1).stderr
    assert "refused for study.roster_revision, study.roster_digest" in refused
    policy.write_text(
        f'[study]\nroster_digest = "{digest}"\nroster_revision = 2\n[sums]\ncohort = 9\n'
    )
    command(*check, cwd=tmp_path)
    command(*check, "--clients", 12, cwd=tmp_path, code=2)
    unsigned = command("policy", "check", "plan.toml", cwd=tmp_path, code=1).stderr
    assert "pass --roster" in unsigned
