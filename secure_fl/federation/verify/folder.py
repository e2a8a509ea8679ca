"""Reading a folder whose content nobody vouches for: what cannot be read becomes a finding."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secure_fl.errors import SecureFLError
from secure_fl.federation.verify.rounds import Finding
from secure_fl.files import parse_json, read_bytes
from secure_fl.records import T

_LARGEST = 1 << 36


@dataclass
class ReadFolder:
    """A folder, what was found in it that does not fit, and what was held against something.

    Attributes:
        checked: what was checked, and how, in words.
        covered: files of which a changed byte would have been found.
    """

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    checked: list[tuple[str, str]] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)

    def found(self, file: str, place: str, problem: str) -> None:
        """Note something that does not fit."""
        self.findings.append(Finding(file, place, problem))

    def names(self, pattern: str) -> list[str]:
        """Files that fit a pattern, in order."""
        fitting = (path for path in self.folder.glob(pattern) if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in fitting)

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None, and a finding, where it cannot be read."""
        try:
            return read_bytes(self.folder / name, most=_LARGEST)
        except SecureFLError as problem:
            self.found(name, "file", problem.problem)
            return None

    def sha256(self, name: str) -> str | None:
        """Of a file, in hex."""
        data = self.read(name)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def json(self, name: str) -> dict[str, Any] | None:
        """A file's JSON object; None, and a finding, where there is none."""
        data = self.read(name)
        return None if data is None else self.parsed(name, data, "content", dict[str, Any])

    def parsed(self, name: str, data: bytes, place: str, kind: type[T]) -> T | None:
        """What some bytes of a file say as JSON; None, and a finding, where they say no `kind`."""
        try:
            return parse_json(data, kind, field=name, value="not shown", remedy="")
        except SecureFLError as problem:
            self.found(name, place, problem.problem)
            return None

    def spelled(self, name: str, value: object, problem: str, **style: Any) -> None:
        """Note a file that is not `value` as it is written, byte for byte; it is covered then.

        Args:
            style: of `json.dumps`; `end` is what follows.
        """
        end = style.pop("end", "")
        data = self.read(name)
        if data is not None and data != (json.dumps(value, indent=1, **style) + end).encode():
            self.found(name, "content", problem)
        self.covered.add(name)
