"""What Flower ships is checked before any of it runs, and who may give a SuperLink orders."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secure_fl.engines.flower import executor
from secure_fl.engines.flower.bundle import app_bytes, app_digest, build_app, bundle
from secure_fl.engines.flower.executor import (
    PROGRAMS,
    OwnMachine,
    RefusedAppError,
    check_app,
    may_ask,
    write_commands,
)


def test_the_bundle_has_no_code_and_the_same_bytes_everywhere(tmp_path: Path) -> None:
    path = build_app(tmp_path)
    assert path.read_bytes() == app_bytes()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == app_digest()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert names == ["pyproject.toml", "LICENSE", ".info/CONTENT"]
    code = "from secure_fl.engines.flower.bundle import app_digest; print(app_digest())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == app_digest()


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_flower_takes_the_bundle_for_its_own(tmp_path: Path) -> None:
    pytest.importorskip("flwr")
    from flwr.cli.build import build_fab_from_files
    from flwr.cli.install import install_from_fab
    from flwr.common.config import get_fab_config

    with zipfile.ZipFile(io.BytesIO(app_bytes())) as archive:
        files = {name: archive.read(name) for name in ("pyproject.toml", "LICENSE")}
    theirs, _ = build_fab_from_files(files)
    with zipfile.ZipFile(io.BytesIO(theirs)) as archive:
        assert archive.namelist() == ["pyproject.toml", "LICENSE", ".info/CONTENT"]
    assert get_fab_config(app_bytes()) == get_fab_config(theirs)
    assert install_from_fab(app_bytes(), tmp_path, skip_prompt=True).is_dir()


def test_any_other_bundle_is_refused() -> None:
    check_app(app_bytes(), app_digest())
    other = bundle({"pyproject.toml": b"", "secure_fl/__init__.py": b"raise SystemExit"})
    for data in (other, app_bytes() + b"\0", app_bytes()[:-1], b""):
        with pytest.raises(RefusedAppError):
            check_app(data, app_digest())


def test_every_program_that_flower_starts_is_stood_in_front_of() -> None:
    pytest.importorskip("flwr")
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    assert set(TASK_TYPE_TO_COMMAND.values()) == set(PROGRAMS)


def test_what_a_federation_does_not_need_does_not_run(tmp_path: Path) -> None:
    pytest.importorskip("flwr")
    write_commands(tmp_path / "site", app_digest(), site=True)
    write_commands(tmp_path / "server", app_digest(), site=False)
    wrong = {"site": ["flwr-serverapp", "flwr-model", "flwr-connector", "flwr-simulation"]}
    wrong["server"] = ["flwr-clientapp", "flwr-agentapp"]
    for folder, names in wrong.items():
        for name in names:
            path = tmp_path / folder / name
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            told = subprocess.run([path, "--token", "x"], capture_output=True, text=True)
            assert told.returncode == 1
            assert "not part of a federation" in told.stderr


def test_another_version_of_flower_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from secure_fl.errors import DependencyError

    monkeypatch.setattr(executor, "version", lambda _: "1.43.0")
    with pytest.raises(DependencyError, match=r"needs flwr 1\.42"):
        executor.main(["client", app_digest()])


@pytest.mark.parametrize(
    ("path", "client", "server", "allowed"),
    [
        ("/v1/fleet/pull-messages", "10.0.0.7", "10.0.0.1", True),
        ("/health", "10.0.0.7", "10.0.0.1", True),
        ("/v1/control/start-run", "127.0.0.1", "127.0.0.1", True),
        ("/v1/control/start-run", "10.0.0.1", "10.0.0.1", True),
        ("/v1/control/start-run", "::1", "::1", True),
        ("/v1/control/start-run", "10.0.0.7", "10.0.0.1", False),
        ("/v1/control/register-node", "10.0.0.7", "10.0.0.1", False),
        ("/v1/runtime/acquire-task", "10.0.0.7", "10.0.0.1", False),
        ("/docs", "10.0.0.7", "10.0.0.1", False),
        ("/v1/fleet", "10.0.0.7", "10.0.0.1", False),
    ],
)
def test_who_may_ask_a_superlink_for_what(
    path: str, client: str, server: str, *, allowed: bool
) -> None:
    scope = {"type": "http", "path": path, "client": (client, 5), "server": (server, 9092)}
    assert may_ask(scope) == allowed


def test_others_are_turned_away_before_flower_sees_them() -> None:
    import asyncio

    sent: list[object] = []

    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("reached")

    async def send(message: object) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {}

    scope = {
        "type": "http",
        "path": "/v1/control/start-run",
        "client": ("10.0.0.7", 5),
        "server": ("10.0.0.1", 9092),
    }
    asyncio.run(OwnMachine(app)(scope, receive, send))
    assert sent[0] == {"type": "http.response.start", "status": 403, "headers": []}


def reading_app() -> Any:
    """An app that reads all of a body before anything else, as Flower's does."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.requests import Request

    async def keep(request: Request, call: Callable[[Request], Any]) -> Any:
        await request.body()
        return await call(request)

    return Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=keep)])


@pytest.mark.parametrize("who", ["10.0.0.7", "10.0.0.1"])
def test_of_a_stranger_not_everything_is_read(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower reads all of a body before it asks for a key; this machine's own is not bounded."""
    import asyncio

    pytest.importorskip("starlette")  # comes with Flower
    monkeypatch.setattr(executor, "MOST_BODIES", 1 << 20)
    sent, given, guard = list[dict[str, object]](), 0, OwnMachine(reading_app())

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        nonlocal given
        given += 1 << 16
        more = given < 1 << 22
        return {"type": "http.request", "body": bytes(1 << 16), "more_body": more}

    scope = {"type": "http", "method": "POST", "path": "/v1/fleet/pull-messages"}
    scope |= {"client": (who, 5), "server": ("10.0.0.1", 9092), "headers": [], "query_string": b""}
    for _ in range(2):
        given = 0
        sent.clear()
        asyncio.run(guard(scope, receive, send))
        stranger = who == "10.0.0.7"
        assert given == ((1 << 20) + (1 << 16) if stranger else 1 << 22)
        assert sent[0]["status"] == (413 if stranger else 404)
        assert not guard._taken


def test_flowers_programs_ask_nobody_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secure_fl.engines.flower.launching import environment

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("FLWR_OIDC_ENABLED", "1")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    link, node = environment(tmp_path), environment(tmp_path, proxies=True)
    assert "HTTPS_PROXY" not in link
    assert node["HTTPS_PROXY"] == "http://proxy:3128"
    for found in (link, node):
        assert (found["FLWR_TELEMETRY_ENABLED"], found["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
        assert (found["UV_OFFLINE"], "FLWR_OIDC_ENABLED" in found) == ("1", False)
        assert "127.0.0.1" in found["NO_PROXY"]
        assert found["FORWARDED_ALLOW_IPS"] == "127.0.0.1"
        assert found["FLWR_HOME"] == str(tmp_path / "home")
        assert found["PATH"].split(os.pathsep)[0] == str(tmp_path / "programs")
