"""The app that a SuperLink ships to sites: it has no code, and names modules that are installed.

Guarantee: its bytes follow from this version of the software alone, on every machine, so a site
knows their hash before anything is shipped.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

from secure_fl.files import make_folder, write_atomically

_DATE = (1980, 1, 1, 0, 0, 0)
_APP = """\
[project]
name = "{name}"
version = "1.0.0"
description = "Starts secure_fl, which is installed at every site"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>=1.42"]

[tool.flwr.app]
publisher = "secure-fl"
fab-format-version = 1
flwr-version-target = "1.42.0"

[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "secure_fl.deployment.flower.client_app:app"

[tool.flwr.app.config]
"""


def app_files(name: str, server: str) -> dict[str, bytes]:
    """What every app of Flower's has, by path.

    Args:
        name: of the app.
        server: its server app, as `module:name`; at sites the installed one answers.
    """
    about = _APP.format(name=name, server=server)
    return {"pyproject.toml": about.encode(), "LICENSE": b"Apache-2.0\n"}


def bundle(files: dict[str, bytes]) -> bytes:
    """Files as Flower's app bundle: nothing is compressed, since not every machine would do that
    in the same way.
    """
    manifest = (
        f"{n},{hashlib.sha256(data).hexdigest()},{8 * len(data)}" for n, data in files.items()
    )
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {**files, ".info/CONTENT": "\n".join(manifest).encode()}.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3  # as on Unix, whoever builds it
            archive.writestr(entry, content)
    return written.getvalue()


@cache
def app_bytes() -> bytes:
    """The bundle."""
    return bundle(app_files("federation", "secure_fl.deployment.flower.server_app:app"))


def app_digest() -> str:
    """SHA-256 of the bundle in hex, which a site pins."""
    return hashlib.sha256(app_bytes()).hexdigest()


def build_app(folder: Path) -> Path:
    """Write the bundle into a folder. Raises FileError: it cannot be written."""
    make_folder(folder)
    path = folder / "federation.fab"
    write_atomically(path, app_bytes())
    return path
