"""What `examples/deployment` holds fits this software: commands, metrics, ports, exit codes; and
containers and units give their processes no more than they need.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():  # of typer, about the version of click that is there
    warnings.simplefilter("ignore")
    import click
    import typer.main

    from secure_fl.cli.exits import FAILED, REFUSED, UNREACHABLE, UNUSABLE
    from secure_fl.cli.main import app

from secure_fl.config_file import read_table
from secure_fl.operations.metrics import NAMES
from secure_fl.operations.settings import OperationsSettings

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples" / "deployment"
UNITS = sorted(HERE.glob("*.service"))
SITES = ("north", "east", "south")


def read(name: str) -> Any:
    return yaml.safe_load((HERE / name).read_text())


COMPOSE = read("compose.yaml")
DOCKERFILE = (HERE / "Dockerfile").read_text().replace("\\\n", " ")
SETTINGS = OperationsSettings(**read_table(HERE / "operations.toml"))


def parsed(words: Sequence[str]) -> str:
    """A command of `secure-fl`, by name, once its arguments were parsed. Raises click.UsageError:
    there is no such command, or it does not take them.
    """
    command: click.Command = typer.main.get_command(app)
    context, rest, names = click.Context(command), list(words), list[str]()
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        assert name is not None
        names.append(name)
        command, context = found, click.Context(found, parent=context)
    command.make_context(names[-1], rest, parent=context.parent)
    return " ".join(names)


def test_a_wrong_command_is_found() -> None:
    for words in (["federate", "begin", "x"], ["site", "run"], ["site", "run", "x", "--always"]):
        with pytest.raises(click.UsageError):
            parsed(words)


def test_compose_runs_real_commands() -> None:
    found = {name: parsed(one["command"]) for name, one in COMPOSE["services"].items() if own(one)}
    assert found == {"server": "federate start", **dict.fromkeys(SITES, "site run")}
    for one in COMPOSE["services"].values():
        if own(one):
            folder = one["command"][2]
            targets = [each.split(":")[1] for each in one["volumes"]]
            assert {folder, f"{folder}/operations.toml", "/var/lib/secure-fl"} == set(targets)


def own(service: dict[str, Any]) -> bool:
    return "SECURE_FL_IMAGE" in str(service["image"])


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_gets_no_more_than_it_needs(name: str) -> None:
    one = COMPOSE["services"][name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert "cap_add" not in one
    assert "privileged" not in one
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert not one["user"].startswith("0")
    assert one["pids_limit"] > 0
    limits = one["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory"}
    assert "healthcheck" in one
    assert "docker.sock" not in str(one)
    assert "network_mode" not in one
    assert re.match(r"\$\{[A-Z_]+:\?.*digest", one["image"]), "pinned by who deploys it"


def test_no_secret_is_in_a_file_or_an_environment() -> None:
    for path in HERE.iterdir():
        assert "PRIVATE KEY" not in path.read_text()
    for one in COMPOSE["services"].values():
        assert not one.get("environment")
    named = re.findall(r"([A-Z_]+)=", " ".join(re.findall(r"^ENV .*$", DOCKERFILE, re.M)))
    assert "SECURE_FL_STATE" in named
    assert not [each for each in named if re.search("KEY|PASS|TOKEN|SECRET", each)]


def test_sites_open_no_port_and_numbers_stay_inside() -> None:
    for name in SITES:
        assert "ports" not in COMPOSE["services"][name]
    assert COMPOSE["networks"]["watch"]["internal"] is True
    assert "federation" not in COMPOSE["services"]["prometheus"]["networks"]
    assert COMPOSE["services"]["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    published = [port.split(":")[-1] for port in COMPOSE["services"]["server"]["ports"]]
    assert str(SETTINGS.port) not in published


def test_one_port_is_served_probed_and_read() -> None:
    assert SETTINGS.port == 9100
    probe = f"http://127.0.0.1:{SETTINGS.port}/healthz"
    assert probe in DOCKERFILE
    for one in COMPOSE["services"].values():
        assert not own(one) or probe in one["healthcheck"]["test"][-1]
    prometheus = read("prometheus.yml")
    targets = [
        target
        for job in prometheus["scrape_configs"]
        for each in job["static_configs"]
        for target in each["targets"]
    ]
    assert sorted(targets) == sorted(f"{name}:{SETTINGS.port}" for name in ("server", *SITES))
    assert prometheus.keys() == {"global", "rule_files", "scrape_configs"}
    mounted = [each.split(":")[0] for each in COMPOSE["services"]["prometheus"]["volumes"]]
    assert {"./prometheus.yml", *(f"./{name}" for name in prometheus["rule_files"])} <= set(mounted)


def instructions(word: str) -> list[str]:
    return re.findall(rf"^{word} +(.*)$", DOCKERFILE, re.M)


def test_the_image_is_made_of_the_wheel_house_alone() -> None:
    assert "@sha256:" in instructions("ARG")[0]
    assert [each.split()[0] for each in instructions("FROM")] == ["${BASE}"] * 2
    assert instructions("COPY")[0] == ". ."
    assert all(each.startswith("--from=install") for each in instructions("COPY")[1:])
    assert not instructions("ADD")
    assert all(each.startswith("--network=none") for each in instructions("RUN"))
    install = instructions("RUN")[0]
    assert install.index("sha256sum --check --strict") < install.index("pip")
    assert "--no-index --find-links ." in " ".join(install.split())
    assert instructions("USER") == ["10001:10001"]
    assert instructions("HEALTHCHECK")
    words = [*json.loads(instructions("ENTRYPOINT")[0]), *json.loads(instructions("CMD")[-1])]
    assert words[0] == "secure-fl"
    assert parsed(words[1:]) == "doctor"


def test_the_image_has_the_extras_of_the_wheel_house() -> None:
    extras = re.findall(r"secure-fl\[([a-z,]+)\]", instructions("RUN")[0])[0]
    assert f"HOUSE_EXTRAS ?= {extras}\n" in (ROOT / "Makefile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def metrics_in(text: str) -> set[str]:
    return {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"secure_fl_[a-z_]+", text)
    }


def expressions(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from (
                [one] if key in ("expr", "query") and isinstance(one, str) else expressions(one)
            )
    elif isinstance(value, list):
        for one in value:
            yield from expressions(one)


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((HERE / "grafana-dashboard.json").read_text())
    asked = " ".join(expressions(dashboard))
    assert metrics_in(asked) == set(NAMES)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for text in expressions(dashboard):
        assert all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}")), text


def test_alerts_ask_for_metrics_that_there_are() -> None:
    rules = [rule for group in read("alerts.yml")["groups"] for rule in group["rules"]]
    for rule in rules:
        assert metrics_in(rule["expr"]) <= set(NAMES), rule["alert"]
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert {"secure_fl_failed", "secure_fl_certificate_days"} <= {
        name for rule in rules for name in metrics_in(rule["expr"])
    }


def settings_of(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_a_real_command_and_gives_it_little(unit: Path) -> None:
    found = settings_of(unit)
    words = shlex.split(found["ExecStart"][0])
    assert Path(words[0]).name == "secure-fl"
    assert (
        parsed(words[1:])
        == {"site": "site run", "server": "federate start"}[unit.stem.rpartition("-")[2]]
    )
    state = found["StateDirectory"][0]
    assert found["User"] == [state]
    assert words[3].startswith(f"/var/lib/{state}/")
    assert f"SECURE_FL_STATE=/var/lib/{state}/state" in found["Environment"]
    assert found["ProtectSystem"] == ["strict"]
    assert found["StateDirectoryMode"] == ["0700"]
    yes = "NoNewPrivileges ProtectHome PrivateTmp PrivateDevices RestrictNamespaces LockPersonality"
    assert all(found[name] == ["yes"] for name in yes.split())
    assert found["CapabilityBoundingSet"] == [""]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_tries_again_only_where_that_can_help(unit: Path) -> None:
    found = settings_of(unit)
    never = set(map(int, found["RestartPreventExitStatus"][0].split()))
    assert never == {REFUSED, UNUSABLE, FAILED}
    assert UNREACHABLE not in never
    assert found["Restart"] == ["on-failure"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_unit(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert [line for line in said if "is not executable" not in line] == []
