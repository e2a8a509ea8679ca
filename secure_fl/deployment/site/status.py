"""How a site's process is, for whoever may enter its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.errors import RunFolderError
from secure_fl.files import held, is_file, read_json


def status_of(folder: SiteFolder) -> tuple[bool, Mapping[str, Any]]:
    """Whether the site runs, and what its process wrote last.

    Raises:
        RunFolderError: the file is damaged.
        FileError: it cannot be read.
    """
    facts: Mapping[str, Any] = {"state": "never ran"}
    if is_file(folder.status):
        facts = read_json(folder.status, dict[str, Any], "start the site: it is written again")
    return running(folder), facts


def running(folder: SiteFolder) -> bool:
    """Whether a process holds the site's folder; the system lets go of it when that dies."""
    try:
        with held(folder.path):
            return False
    except RunFolderError:
        return True
