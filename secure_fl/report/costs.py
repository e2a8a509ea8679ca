"""What a run would take, as text: a table, or paragraphs on a narrow page."""

from __future__ import annotations

import textwrap

from secure_fl.estimate import Estimate, PhaseCost
from secure_fl.quantities import clock, size


def short(taken: Estimate) -> str:
    """An estimate in a line."""
    trained = [phase for phase in taken.phases if phase.name in ("pretrain", "cluster")]
    rounds = ", ".join(f"{phase.rounds} x {phase.name}" for phase in trained)
    sent = f"about to send {size(taken.bytes)} in all ({rounds})"
    return f"{sent}; `secure-fl check` estimates time too"


def lines(taken: Estimate, width: int) -> list[str]:
    """An estimate as a table no wider than `width`; on a narrow page as a paragraph a phase."""
    used = f"about {clock(taken.seconds or 0)} here, memory about {size(taken.memory)}"
    notes = [
        f"in all {size(taken.bytes)}, {used}",
        "time and memory are estimates; bytes follow from what is sent, where all clients answer "
        "and all pools open",
    ]
    if any(phase.most for phase in taken.phases):
        notes.append("sketch rounds end when the groups have settled")
    made = _table(taken)
    if max(map(len, made)) > width:
        made = [part for phase in taken.phases for part in _paragraph(phase)]
    return [*made, "", *(line for note in notes for line in textwrap.wrap(note, width))]


def _table(taken: Estimate) -> list[str]:
    counts = f"{'phase':<10}{'rounds':>8}{'clients':>9}"
    head = f"{counts}{'a client sends':>16}{'all bytes':>11}{'time':>10}"
    return [head, *(_row(phase) for phase in taken.phases)]


def _row(phase: PhaseCost) -> str:
    each = size(phase.up / phase.clients) if phase.clients else "-"
    whole = size(phase.bytes) if phase.clients else "-"
    return (
        f"{phase.name:<9} {_rounds(phase):>8} {phase.clients or '-':>8}{each:>16} {whole:>10} "
        f"{clock(phase.rounds * (phase.seconds or 0)):>9}"
    )


def _paragraph(phase: PhaseCost) -> list[str]:
    time = clock(phase.rounds * (phase.seconds or 0))
    made = [f"{phase.name}: {_rounds(phase)} rounds, {time}"]
    if phase.clients:
        each = size(phase.up / phase.clients)
        made += [
            f"  {phase.clients} clients, each sends",
            f"  {each} a round; all {size(phase.bytes)}",
        ]
    return made


def _rounds(phase: PhaseCost) -> str:
    return str(phase.rounds) if phase.most is None else f"{phase.rounds} (≤{phase.most})"
