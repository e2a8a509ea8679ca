"""Names as they are shown: of runs, clients and labels, whatever somebody called them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from secure_fl.config import FederationConfig

_UNNAMED = ("", FederationConfig.model_fields["name"].default)
_LONGEST_NAME, _LONGEST_SENTENCE = 60, 2000
_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Characters that turn the direction of the text after them."""
_NO_XML = ("\ufffe", "\uffff")


def told_apart(runs: Sequence[tuple[str, Path]]) -> list[str]:
    """Names of which no two are equal: a run without one is called as its folder, runs of one name
    have their folders' beside it.
    """
    runs = [(name, Path(_clean(str(folder)))) for name, folder in runs]
    firsts = [folder.name if name in _UNNAMED else name for name, folder in runs]
    met, names = Counter(firsts), firsts
    for depth in range(1, max((len(folder.parts) for _, folder in runs), default=0) + 1):
        if len(set(names)) == len(names):
            return names
        ends = ["/".join(folder.parts[-depth:]) for _, folder in runs]
        names = [
            first if met[first] == 1 else end if name in _UNNAMED else f"{first} ({end})"
            for first, end, (name, _) in zip(firsts, ends, runs, strict=True)
        ]
    return [f"{name} #{place}" for place, name in enumerate(names, 1)]


def printable(text: str) -> str:
    """A name in one line: without control characters and turns of direction, cut where it is very
    long. One that is written from the right is kept apart from what stands beside it.
    """
    kept = _clean(text)
    kept = kept if len(kept) <= _LONGEST_NAME else kept[: _LONGEST_NAME - 1] + "…"
    turned = any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in kept)
    return f"\N{FIRST STRONG ISOLATE}{kept}\N{POP DIRECTIONAL ISOLATE}" if turned else kept


def sentence(text: str) -> str:
    """What a record says, in one line, as `printable` shows a name."""
    kept = _clean(text[: _LONGEST_SENTENCE + 1])
    return kept if len(kept) <= _LONGEST_SENTENCE else kept[: _LONGEST_SENTENCE - 1] + "…"


def brief(name: str, most: int = 26) -> str:
    """A printable name where there is little room."""
    if len(name) <= most:
        return name
    end = "\N{POP DIRECTIONAL ISOLATE}" if "\N{FIRST STRONG ISOLATE}" in name else ""
    return f"{name[: most - 1].rstrip()}…{end}"


def _clean(text: str) -> str:
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(one) else one for one in text)


def _is_control(character: str) -> bool:
    return (
        unicodedata.category(character) in ("Cc", "Cs")
        or unicodedata.bidirectional(character) in _TURNS
        or character in _NO_XML
    )
