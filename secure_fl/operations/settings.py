"""What one machine shows of itself: `operations.toml` in its folder. Nobody else sees or signs it,
and where there is none, logs go to standard error and no port is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from secure_fl.config.section import PathText, Section
from secure_fl.config_file import read_table
from secure_fl.files import is_file

FILE = "operations.toml"


class OperationsSettings(Section):
    """`operations.toml`."""

    logs: Literal["text", "json"] = "text"
    """text: lines that people read | json: one object a line"""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """the least that is logged; debug has a line for every message"""
    log: PathText = ""
    """file that logs are added to; relative paths begin in this folder; standard error where empty
    """
    host: str = Field("127.0.0.1", min_length=1, max_length=253)
    """address on which metrics and probes are served, without TLS"""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """of /metrics, /healthz and /readyz; none is opened where 0"""
    quiet: Annotated[float, Field(gt=0, le=604800)] = 4000.0
    """seconds for which the process may be busy with one message (training is one) before
    /healthz says no
    """
    traces: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """address of a collector of OpenTelemetry, such as http://127.0.0.1:4318/v1/traces; none where
    empty
    """
    page: Literal["auto", "on", "off"] = "auto"
    """status.html | auto: written where jinja2 is installed | on: an error where it is not | off"""

    @classmethod
    def of(cls, folder: Path, **defaults: str) -> OperationsSettings:
        """Of a server's or a site's folder. Raises ConfigError: its file is not of this kind.

        Args:
            folder: its own.
            defaults: of settings that the file does not have.
        """
        path = folder / FILE
        found = read_table(path, "operations", "an editor") if is_file(path) else {}
        return cls(**defaults | found)
