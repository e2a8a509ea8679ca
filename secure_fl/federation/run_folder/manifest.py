"""What of a document a run writes: all writers go through the table of tags (`tags`), and a
field that nobody tagged is not written.

**Guarantee**: a document written through `Manifest.view` has tagged fields only, and no
`experimenter` field where these are left out.

**Assumes**: the tags are right; tests change one example and look for a `public` field that changes
with it.

**Not covered**: the process itself, which knows everything that it simulates, and says so
in `Result`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from secure_fl.config import FederationConfig
from secure_fl.errors import RunFolderError
from secure_fl.federation.run_folder.tags import (
    ANY,
    BELOW,
    EXPERIMENTER,
    PUBLIC,
    TAGS,
    Rules,
    rules_of,
)
from secure_fl.files import parse_json
from secure_fl.records import Record, document

R = TypeVar("R", bound=Record)
_TAG = f"tag it in federation/run_folder/tags.py: {PUBLIC}, released:... or {EXPERIMENTER}"


@dataclass(frozen=True)
class Manifest:
    """The tags of one run's files.

    Attributes:
        files: file -> name -> ... -> tag. A tag stands for one value or a list of values,
            `experimenter` also for all that is below it.
        experiments: whether fields of the experimenter's are written.
    """

    files: Rules
    experiments: bool

    @classmethod
    def of(cls, config: FederationConfig) -> Manifest:
        """The tags that follow from a configuration."""
        return cls(rules_of(config), config.evaluate.enabled)

    def view(self, file: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a file's document that are written; empty where all are the experimenter's
        and left out. Raises RunFolderError: a field, or the file, has no tag.

        Args:
            file: its path within the run's folder, such as `model/model.json`.
            document: names and values, nested as they will be written.
        """
        kept = self._kept(document, self._rules(file), file)
        return {} if kept is _LEFT_OUT else dict(kept)

    def seen(self, file: str, record: R) -> R:
        """A record as it reads once it is written: without the fields that are left out. Raises
        RunFolderError: a field has no tag.
        """
        kept = json.dumps(self.view(file, document(record)), allow_nan=False).encode()
        return parse_json(kept, type(record), field=file, value="not shown", remedy=_TAG)

    def writes(self, file: str) -> bool:
        """Whether anything of a file is written."""
        return self.experiments or bool(_tags(self._rules(file)) - {EXPERIMENTER})

    def covers(self, file: str) -> bool:
        """Whether a file is the run's own."""
        try:
            return self._rules(file) is not None
        except RunFolderError:
            return False

    def is_experimenters(self, file: str) -> bool:
        """Whether anything that is written of a file is the experimenter's."""
        return self.experiments and EXPERIMENTER in _tags(self._rules(file))

    def without_experiments(self) -> Manifest:
        """The tags as a reader sees them who is not the experimenter."""
        return replace(self, experiments=False)

    @property
    def outside(self) -> list[str]:
        """Written and outside of every claim: the experimenter's files, and fields of others."""
        found = []
        for file, rules in self.files.items() if self.experiments else ():
            if _tags(rules) == {EXPERIMENTER}:
                found.append(file)
            elif EXPERIMENTER in _tags(rules):
                found.append(f"{file}: {', '.join(_fields(rules, EXPERIMENTER))}")
        return found

    def as_dict(self) -> dict[str, Any]:
        """The content of `manifest.json`: what each tag says, and the tags of what is written."""
        files = _written(self.files, self.experiments)
        tags = {tag: said for tag, said in TAGS.items() if tag in _tags(files)}
        return {"tags": tags, "files": files}

    def _rules(self, file: str) -> str | Rules:
        names = file.split("/")
        for known, rules in self.files.items():
            parts = known.split("/")
            fits = (part in (ANY, name) for part, name in zip(parts, names, strict=False))
            if len(parts) == len(names) and all(fits):
                return rules
        raise _untagged(file)

    def _kept(self, value: Any, rule: str | Rules | None, where: str) -> Any:
        """A value as it is written, or `_LEFT_OUT`."""
        if rule is None:
            raise _untagged(where)
        if rule == EXPERIMENTER:
            return value if self.experiments else _LEFT_OUT
        if isinstance(rule, Mapping) and BELOW in rule:
            return value
        if isinstance(value, Mapping) and isinstance(rule, Mapping):
            kept = {
                name: self._kept(item, rule.get(name, rule.get(ANY)), f"{where}/{name}")
                for name, item in value.items()
            }
            kept = {name: item for name, item in kept.items() if item is not _LEFT_OUT}
            return kept if kept or not value else _LEFT_OUT
        if isinstance(value, list | tuple):
            items = [self._kept(item, rule, where) for item in value]
            items = [item for item in items if item is not _LEFT_OUT]
            return items if items or not value else _LEFT_OUT
        if isinstance(value, Mapping) or isinstance(rule, Mapping):
            raise _untagged(where)
        return value


_LEFT_OUT = object()
"""Stands for a field that is not written."""


def _untagged(where: str) -> RunFolderError:
    return RunFolderError("a field without a tag is not written", where, "not shown", _TAG)


def _tags(rules: str | Rules) -> set[str]:
    if isinstance(rules, str):
        return {rules}
    return {tag for rule in rules.values() for tag in _tags(rule)}


def _fields(rules: str | Rules, tag: str, prefix: str = "") -> list[str]:
    """Paths with a tag."""
    if isinstance(rules, str):
        return [prefix] if rules == tag else []
    return [
        path
        for name, rule in rules.items()
        for path in _fields(rule, tag, f"{prefix}/{name}" if prefix else name)
    ]


def _written(rules: str | Rules, experiments: bool) -> Any:
    """The rules of what is written."""
    if isinstance(rules, str):
        return rules if experiments or rules != EXPERIMENTER else {}
    kept = {name: _written(rule, experiments) for name, rule in rules.items()}
    return {name: rule for name, rule in kept.items() if rule}
