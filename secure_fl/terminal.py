"""Printing on any terminal: letters that its encoding lacks are spelled out."""

from __future__ import annotations

import codecs
import sys
import unicodedata

_SPELLED = {
    "ε": "eps", "δ": "delta", "σ": "sigma", "γ": "gamma", "α": "alpha", "β": "beta", "τ": "tau",
    "Σ": "sum", "κ": "kappa", "→": "->", "×": "x", "·": "*", "≤": "<=", "≥": ">=", "≈": "~",
    "−": "-", "–": "-", "—": "-", "±": "+-", "…": "...", "∞": "inf", "‘": "'", "’": "'", "“": '"',
    "”": '"', "°": " deg", "²": "^2", "½": "1/2", "¼": "1/4", "¾": "3/4", "•": "*", "━": "-",
    "─": "-", **dict.fromkeys("█▇▆▅▄", "#"), **dict.fromkeys("▃▂▁░", "."),
}  # fmt: skip
_NAME = "secure_fl.spelled"


def prepare() -> None:
    """From here on output and errors are written whole in whatever encoding they have."""
    codecs.register_error(_NAME, _spell)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_NAME)


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """ASCII, which every encoding of a terminal has, for letters that one lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(letter: str) -> str:
    spelled = (
        _SPELLED.get(letter)
        or unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    )
    return spelled or "?"
