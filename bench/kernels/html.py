"""One page of pictures: seconds, memory and share of the floor against rows, of every kernel in the
CSV; beside each picture the figures it was drawn from.
"""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from html import escape
from pathlib import Path

from bench.harness import ROOT, read_rows
from bench.kernels.plots import SAME, Record, draw_all, file_stem, measured, newest
from bench.kernels.registry import NAMES, kernel
from bench.kernels.run import CSV

HTML = ROOT / "docs" / "kernel-speed.html"
_COLUMNS = ("rows", "provider", "y50", "y20", "y80", "times_naive", "peak_mib", "floor_share")
_COLUMNS += ("limits",)
_HEADS = ("rows", "provider", "seconds", "0.2", "0.8", "times naive", "MiB", "of floor", "limits")
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
img{width:100%}table{border-collapse:collapse;font-size:13px}td,th{padding:.1rem .6rem;
text-align:right;border-bottom:1px solid #ddd}td:nth-child(2),th:nth-child(2){text-align:left}
summary{cursor:pointer;color:#555}small{color:#555}"""


def write_html(folder: Path, path: Path = HTML) -> Path:
    """Draw the folder's pictures anew and put them into one page that needs no other file.

    Raises:
        DependencyError: matplotlib is missing.
    """
    pictures = {picture.stem: picture for picture in draw_all(folder)}
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in measured(newest(read_rows(CSV, folder))):
        groups[tuple(record[name] for name in SAME)].append(record)
    parts = []
    for name in NAMES:
        own = {key: rows for key, rows in groups.items() if key[0] == name}
        if own:
            parts.append(f"<h2>{escape(name)}</h2>\n<p>{escape(kernel(name).title)}</p>")
        parts += [_section(key, rows, pictures.get(file_stem(key))) for key, rows in own.items()]
    path.write_text(_page("\n".join(parts), groups), encoding="utf-8")
    return path


def _page(body: str, groups: dict[tuple[str, ...], list[Record]]) -> str:
    machines = dict.fromkeys(row["machine"] for rows in groups.values() for row in rows)
    where = "; ".join(escape(machine) for machine in machines) or "nothing was measured yet"
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>How fast the kernels are</title>
<style>{_STYLE}</style>
<h1>How fast the kernels are</h1>
<p>Measured on {where}. Rows are logarithmic; bands are the 0.2 and 0.8 quantiles.
<a href="kernel-speed.md">kernel-speed.md</a> says how it is measured and what a floor is;
<code>python -m bench.kernels page</code> writes both pages from the CSV.</p>
{body}
</html>
"""


def _section(key: tuple[str, ...], rows: list[Record], picture: Path | None) -> str:
    """One picture, where there are two sizes or more, over its figures."""
    _, setting, dimension, dtype, device, threads = key
    words = [setting, f"D = {dimension}", dtype, device, f"threads: {threads}"]
    caption = escape(", ".join(word for word in words if word))
    image = ""
    if picture is not None:
        data = b64encode(picture.read_bytes()).decode()
        image = f'<img alt="{caption}" src="data:image/svg+xml;base64,{data}">\n'
    heads = "".join(f"<th>{head}</th>" for head in _HEADS)
    lines = "\n".join(
        "<tr>" + "".join(f"<td>{escape(row[name])}</td>" for name in _COLUMNS) + "</tr>"
        for row in sorted(rows, key=lambda row: int(row["rows"]))
    )
    table = f"<table>\n<tr>{heads}</tr>\n{lines}\n</table>"
    return f"<h3>{caption}</h3>\n{image}<details><summary>figures</summary>{table}</details>"
