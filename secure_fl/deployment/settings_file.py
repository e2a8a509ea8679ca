"""`federation.toml` as it is first written, and what follows from it for certificates and sites."""

from __future__ import annotations

from pathlib import Path

from secure_fl.config_file import commented
from secure_fl.deployment.settings import Deployment
from secure_fl.errors import ConfigError
from secure_fl.files import read_bytes

END = "# The end of federation.toml: this line stays the last."


def hosts_of(settings: Deployment) -> tuple[str, ...]:
    """Names and addresses that the server's certificate is made out to; commands on its own machine
    reach it as localhost.
    """
    named = (settings.server.host, settings.superlink.host, "localhost", "127.0.0.1")
    return tuple(dict.fromkeys(named))


def settings_text(settings: Deployment) -> str:
    """`federation.toml` with every setting and what it means."""
    head = "# How the machines of this federation find each other; sign again after a change."
    return "\n".join([head, "", *commented(settings)]).rstrip() + f"\n\n{END}\n"


def check_whole_file(path: Path) -> None:
    """Refuse a file that was cut off: what is left of it may be TOML too, with other settings.
    Raises ConfigError: its last line is not the one that ends it; FileError: it cannot be read.
    """
    if not read_bytes(path).rstrip().endswith(END.encode()):
        remedy = f"copy it again; where it has all settings, end it with the line `{END}`"
        raise ConfigError("is cut off", path.name, str(path), remedy)


def app_of(settings: Deployment) -> str:
    """SHA-256 of the app that Flower ships, in hex; empty without Flower."""
    if settings.launch == "direct":
        return ""
    from secure_fl.deployment.flower.app import app_digest

    return app_digest()
