"""Pages of runs: written, read back as texts and tables, and records edited."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from helpers import make_images

from secure_fl.config import FederationConfig
from secure_fl.run import Federation


class Reader(HTMLParser):
    """Texts, tags with their attributes, and tables as rows of texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tiles: list[str] = []
        self.rows: list[list[str]] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        self._tile = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "section":
            self.tiles.append("")
            self._tile = True
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._tile = False
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if self._tile:
            self.tiles[-1] += f" {text}"
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {text}".strip()
        if self._open and self._open[-1] in ("h1", "h2"):
            self.headings[-1] += text

    def row(self, first: str) -> list[str]:
        """The last row that begins so."""
        return [row for row in self.rows if row and row[0] == first][-1]


def edit(file: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def read(folders: list[Path], path: Path) -> tuple[str, Reader]:
    from secure_fl.report.page import write_report

    write_report(folders, path)
    page = path.read_text(encoding="utf-8")
    return page, Reader(page)


def run(folder: Path, config: FederationConfig) -> Path:
    Federation(config, data=make_images(240)).run(folder)
    return folder


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found
