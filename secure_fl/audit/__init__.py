"""Attempts to falsify what the project claims."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secure_fl.audit.finding import Finding as Finding
    from secure_fl.audit.finding import SensitivityReport as SensitivityReport
    from secure_fl.audit.sensitivity import check_sensitivity as check_sensitivity

_EXPORTS = {
    "Finding": "secure_fl.audit.finding",
    "SensitivityReport": "secure_fl.audit.finding",
    "check_sensitivity": "secure_fl.audit.sensitivity",
}
__all__ = list(_EXPORTS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Exports are imported when they are used."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
