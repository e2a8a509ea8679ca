"""What a run's folder holds, field by field, each with the tag that the folder's own manifest gives
it. Knows nothing of the code that wrote it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

Fields = dict[tuple[str, str], tuple[str | None, str]]


def fields(folder: Path, rules: dict[str, Any] | None = None) -> Fields:
    """(file, place in it) -> (tag, value as text). A field without a tag has None. `rules`: another
    manifest's than the folder's.
    """
    if rules is None:
        rules = json.loads((folder / "manifest.json").read_text())["files"]
    found: Fields = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        file = path.relative_to(folder).as_posix()
        known = next((rules[pattern] for pattern in rules if fnmatchcase(file, pattern)), None)
        for place, tag, value in _leaves(_content(path), known, ""):
            found[file, place] = (tag, value)
    return found


def tagged(
    folder: Path, tag: str, rules: dict[str, Any] | None = None
) -> dict[tuple[str, str], str]:
    """Place and value of the fields with a tag."""
    return {where: value for where, (given, value) in fields(folder, rules).items() if given == tag}


def untagged(folder: Path) -> list[tuple[str, str]]:
    return [where for where, (tag, _) in fields(folder).items() if tag is None]


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".toml":
        return tomllib.loads(path.read_text())
    if path.suffix == ".safetensors":
        return {name: tensor.tolist().__repr__() for name, tensor in load_file(path).items()}
    return path.read_bytes().hex() if path.suffix == ".sealed" else path.read_text()


def _leaves(value: Any, rule: Any, place: str) -> Iterator[tuple[str, str | None, str]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            below = rule if isinstance(rule, str) and rule == "experimenter" else None
            if isinstance(rule, dict):
                below = rule if "**" in rule else rule.get(name, rule.get("*"))
            yield from _leaves(item, below, f"{place}/{name}")
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, rule, f"{place}[{number}]")
    elif value not in ({}, []):
        tag = rule.get("**") if isinstance(rule, dict) else rule
        yield place, tag, json.dumps(value)
