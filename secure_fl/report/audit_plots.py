"""Pictures of an audit: bounds on ε beside what is claimed, and attacks beside chance and limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from textwrap import wrap
from typing import TYPE_CHECKING

from secure_fl.audit.bounds.result import Bound
from secure_fl.audit.outcome import Figure
from secure_fl.report.audited import Audit, at_least
from secure_fl.report.figures import COLOURS, Chart, Key, as_svg, drawing, new_figure
from secure_fl.report.tables import epsilon

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOUND, _ATTACKED, _OVER, _CHANCE = COLOURS[0], COLOURS[1], COLOURS[3], COLOURS[7]
_SETTINGS = {"defence on": _BOUND, "defence off": _ATTACKED}
_MOST_ROWS = 30
_WIDTH, _LINES = 62, 2
"""Letters of a label's line, and lines of a label."""


@dataclass(frozen=True)
class _Row:
    """One line of a picture: a label above it, and a bound or a figure with what it is held to."""

    label: str
    held: Bound | Figure
    claim: float | None = None


def bounds_plot(audit: Audit) -> Chart | None:
    """For each method the interval that is left to the true ε: from the lower bound to the claim.
    None without any bound.
    """
    rows = [
        _Row(f"{outcome.check}: {bound.method}", bound, audit.claimed(outcome, bound))
        for outcome, bound in audit.bounds
    ][:_MOST_ROWS]
    if not rows:
        return None
    ends = [value for row in rows for value in (row.held.epsilon, row.claim or 0)]  # type: ignore[union-attr]
    most = 1.1 * max([value for value in ends if isfinite(value)] + [0.1])
    with drawing():
        figure = new_figure(4.2, 0.44 * len(rows) + 0.7)
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            _draw_bound(axes, place, row, most)
        _rows_down(axes, len(rows), [row.label for row in rows])
        axes.set(xlabel="ε", xlim=(0, most))
        svg = as_svg(figure)
    keys = (
        Key("left to the true ε: lower bound to claim", _BOUND, ""),
        Key("estimate, not a bound: may lie above a true claim", _ATTACKED),
        Key("claimed", _OVER, "4 2"),
    )
    said = "; ".join(_said(row) for row in rows)
    return Chart(
        "ε found from below, beside what is claimed", f"Bars by method: {said}.", svg, keys
    )


def _said(row: _Row) -> str:
    assert isinstance(row.held, Bound)
    sign = "at least" if row.held.kind == "bound" else "about"
    claim = "" if row.claim is None else f", claimed {epsilon(row.claim)}"
    return f"{row.label} {sign} {at_least(row.held.epsilon)}{claim}"


def _draw_bound(axes: Axes, place: int, row: _Row, most: float) -> None:
    assert isinstance(row.held, Bound)
    low, claim = min(row.held.epsilon, most), row.claim
    if row.held.kind == "estimate":
        axes.plot(low, place, "o", color=_ATTACKED, markersize=5)
    else:
        end = most if claim is None else max(claim, low)
        colour = _OVER if claim is not None and low > claim else _BOUND
        axes.plot([low, end], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(low, place, "|", color=colour, markersize=9, markeredgewidth=2)
    if claim is not None:
        axes.vlines(claim, place - 0.2, place + 0.3, color=_OVER, linestyle=(0, (4, 2)))


def attacks_plot(audit: Audit) -> Chart | None:
    """How far attacks came, with and without the defence, beside chance and what the claim allows
    at most. None where nothing was measured that chance is known of.
    """
    rows = [
        _Row(f"{outcome.check}: {figure.name}", figure)
        for outcome, figure in audit.figures
        if figure.chance is not None and 0 <= figure.value <= 1
    ][:_MOST_ROWS]
    if not rows:
        return None
    labels = ["" if _same(rows, place) else row.label for place, row in enumerate(rows)]
    with drawing():
        figure = new_figure(4.2, 0.44 * len(rows) + 0.7)
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            _draw_figure(axes, place, row.held)
        _rows_down(axes, len(rows), labels)
        axes.set(xlabel="reached by the attack; lines are 95 % intervals", xlim=(0, 1.02))
        svg = as_svg(figure)
    bare = any(_colour(row.held) == _ATTACKED for row in rows)
    keys = (
        *([Key("defence off", _ATTACKED)] if bare else []),
        Key("as the run does it", _BOUND),
        Key("by chance", _CHANCE, "1.5 1.5"),
        Key("limit", _OVER, "4 2"),
    )
    title = "Attacks, with and without the defence" if bare else "Attacks, beside chance"
    told = (
        f"{row.label} {row.held.setting} {row.held.value:.3f}, chance {row.held.chance:.3f}"  # type: ignore[union-attr]
        for row in rows
    )
    return Chart(title, f"Dots: {'; '.join(told)}.", svg, keys)


def _same(rows: Sequence[_Row], place: int) -> bool:
    """Whether a row is of what the row above is of."""
    return place > 0 and rows[place].label == rows[place - 1].label


def _draw_figure(axes: Axes, place: int, figure: Bound | Figure) -> None:
    assert isinstance(figure, Figure)
    colour = _colour(figure)
    if figure.low is not None and figure.high is not None:
        axes.plot([figure.low, figure.high], [place, place], color=colour, linewidth=1.5)
    axes.plot(figure.value, place, "o", color=colour, markersize=5, clip_on=False)
    for value, ink, dashes in (
        (figure.chance, _CHANCE, (1.5, 1.5)),
        (figure.limit, _OVER, (4, 2)),
    ):
        if value is not None and value <= 1:
            axes.vlines(value, place - 0.2, place + 0.3, color=ink, linestyle=(0, dashes))


def _colour(held: Bound | Figure) -> str:
    return _SETTINGS.get(held.setting, _BOUND) if isinstance(held, Figure) else _BOUND


def _rows_down(axes: Axes, count: int, labels: Sequence[str]) -> None:
    """Rows from the top down, each with its label above it."""
    axes.set(yticks=[], ylim=(count - 0.5, -0.75))
    across = axes.get_yaxis_transform()
    for place, label in enumerate(labels):
        lines = wrap(label, _WIDTH, max_lines=_LINES, placeholder="…")
        axes.text(0.01, place - 0.26, "\n".join(lines), fontsize=7, transform=across, va="bottom")
