"""`secure-fl audit`: tries to falsify what a run claims, and itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_fl.cli.audit_progress import AuditShown, SelfTestShown
from secure_fl.cli.console import Sheet, err, out
from secure_fl.errors import ConfigError

if TYPE_CHECKING:
    from secure_fl.audit.outcome import Outcome
    from secure_fl.audit.subject import Subject
    from secure_fl.audit.suite.document import AuditDocument
    from secure_fl.audit.suite.self_test import SelfTest

HELP = """\
Try to falsify what a run claims: attack it, count it again, lie to it; say what held.

\b
Of a finished run (DIR) the checks rebuild the very clients, mechanisms and parties that it
used, and look at its record; of a CONFIG, those that a run of it would use:
  secure-fl audit runs/mine                      ten minutes on two cores, or less
  secure-fl audit my.toml --depth hour           more canaries, candidates and seeds
  secure-fl audit runs/mine --only account       one check; the others keep what they said
  secure-fl audit my.toml --only coupling        what one example moves: loss, encoder, views
  secure-fl audit runs/mine --list               which apply, and how long each will take
  secure-fl report runs/mine                     then shows what was tried, and what held
  secure-fl audit --self-test --seeds 20         would it see a fault? plants every one

\b
Verdicts:
  held       the check tried, and did not succeed; at its depth, and no more than that
  broken     something that is claimed does not hold; an honest run is called so with a
             probability of at most 0.001 a check
  not tried  a check was stopped; no pass

An audit needs all clients' examples, as a simulation has them; of one party's folder it tries
what that record alone shows (name --out), and the rest is not tried. It changes nothing but
audit/ and audit.json; examples that attacks made out may be in there. After Ctrl-C the same
command goes on: outcomes are kept, for this very record, depth, seed and software. So does a
self-test, whose trials are kept by fault and seed.

\b
Exits with
  0  all that was tried held; every planted fault was caught
  1  a claim is broken; a planted fault was missed, or an honest run called broken
  2  there is nothing that can be audited: no run, no configuration, no place to write to
  3  nothing is broken, but something was not tried
"""
BROKEN, NOT_TRIED = 1, 3
_STYLES = {"broken": "red", "not tried": "yellow"}
_SELF_TEST = Path("runs", "self-test")
_EXITS = {"held": 0, "broken": BROKEN, "not tried": NOT_TRIED}


class _Depth(StrEnum):
    """As `audit.check.Depth`, which would bring torch along."""

    MINUTES = "minutes"
    HOUR = "hour"
    NIGHT = "night"


_Subject = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR|CONFIG]", help="A run's or a party's folder, or a configuration."),
]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for audit.json and audit/; the run's own, or runs/NAME-audit for a CONFIG. "
        "With --self-test, for its trials; runs/self-test.",
    ),
]
_Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="A check, or with --self-test a fault; repeat it."),
]
_Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, help="At a time; 2 where there are two cores.")
]


def audit(
    subject: _Subject = None,
    depth: Annotated[_Depth, typer.Option(help="How long all of it may take.")] = _Depth.MINUTES,
    out_dir: _Out = None,
    only: _Only = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what the checks draw.")] = 0,
    jobs: _Jobs = None,
    testing: Annotated[
        bool, typer.Option("--self-test", help="Plant faults, and see that each is caught.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="How often a self-test plants each.")] = 1,
    listing: Annotated[
        bool, typer.Option("--list", help="Say what there is (for a subject: what applies); end.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.")
    ] = False,
) -> None:
    """Try to falsify what a run claims, or plant faults to see whether that would be seen."""
    at_a_time, names = jobs or min(2, os.cpu_count() or 1), only or []
    if testing and subject is not None:
        problem, remedy = "plants faults in small runs of its own", "leave the folder out"
        raise ConfigError(problem, "--self-test", str(subject), remedy)
    if subject is None and not (testing or listing):
        remedy = "name a run's folder or a configuration, or pass --self-test or --list"
        raise ConfigError("nothing to audit", "DIR|CONFIG", None, remedy)
    if listing:
        _list(subject, depth, names, faulty=testing)
    elif subject is None:
        at = range(seed, seed + seeds)
        raise typer.Exit(_self_test(out_dir or _SELF_TEST, at, names, at_a_time, as_json))
    else:
        raise typer.Exit(_audit(subject, out_dir, depth, names, seed, at_a_time, as_json))


def _audit(
    path: Path,
    out_dir: Path | None,
    depth: str,
    only: Sequence[str],
    seed: int,
    jobs: int,
    as_json: bool,
) -> int:
    """Audit, print what was found, and give the exit code."""
    from secure_fl.audit.check import Depth
    from secure_fl.audit.subject import Subject
    from secure_fl.audit.suite.document import FILE, encoded, verdict_of
    from secure_fl.audit.suite.running import audit as audited

    subject = Subject.of(path)
    place = _place(subject, out_dir)
    shown = AuditShown(Depth(depth), jobs)
    with _resumable("outcomes"), shown:
        made = audited(
            subject,
            place,
            depth=Depth(depth),
            seed=seed,
            only=only,
            jobs=jobs,
            path=path,
            listener=shown,
        )
    chosen = [each for each in made.outcomes if not only or each.check in only]
    if as_json:
        print(encoded(made).decode())
    else:
        _show(made, chosen)
        out.print(f"wrote {(place or path) / FILE}")
        out.print(f"seal {made.seal}: note it elsewhere; `verify` and the page hold it to the file")
    return _EXITS[verdict_of(chosen)]


def _place(subject: Subject, out_dir: Path | None) -> Path | None:
    if out_dir is not None or subject.folder is not None:
        return out_dir
    return Path("runs") / f"{subject.config.name.replace('/', '-')}-audit"


def _show(made: AuditDocument, chosen: Sequence[Outcome]) -> None:
    """A row for each check, and what the run claims."""
    claimed = sorted({_claim(each.unit, each.epsilon, each.delta) for each in made.claims})
    if claimed:
        out.print(f"claimed: {'; '.join(claimed)}")
    if made.refused:
        refused = [[each.check, each.why] for each in made.refused]
        out.print(Sheet("does not apply", ["check", "why"], refused))
    rows = [[each.check, each.against, each.verdict, each.said] for each in chosen]
    styles = [_STYLES.get(each.verdict, "") for each in chosen]
    title = f"{made.subject.kind} {made.subject.name}, depth {made.depth}, seed {made.seed}"
    out.print(Sheet(title, ["check", "against", "verdict", "what was seen"], rows, styles))
    counts = {
        verdict: sum(each.verdict == verdict for each in chosen)
        for verdict in ("held", "broken", "not tried")
    }
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    style = "red" if counts["broken"] else "yellow" if counts["not tried"] else ""
    out.print(told or "no check was tried", style=style or None)


def _claim(unit: str, epsilon: float | None, delta: float) -> str:
    told = "no bound" if epsilon is None else f"ε = {epsilon:.3g}"
    return f"{told} at δ = {delta:g} ({unit})"


def _self_test(
    place: Path, seeds: Sequence[int], only: Sequence[str], jobs: int, as_json: bool
) -> int:
    """Plant faults, print what was caught, and give the exit code."""
    from secure_fl.audit.suite.document import encoded
    from secure_fl.audit.suite.self_test import self_test

    with _resumable("trials"), SelfTestShown() as shown:
        found = self_test(place, seeds=seeds, only=only, jobs=jobs, listener=shown)
    if as_json:
        print(encoded(found).decode())
    else:
        _show_rows(found)
    return BROKEN if found.failed else 0 if found.ok else NOT_TRIED


def _show_rows(found: SelfTest) -> None:
    rows = [
        [row.fault, row.check, f"{row.caught}/{row.seeds}", f"{row.passed}/{row.seeds}", row.alarms]
        for row in found.rows
    ]
    styles = ["" if row.ok else "red" for row in found.rows]
    columns = ["fault", "check", "caught", "honest passed", "false alarms"]
    out.print(Sheet("planted faults", columns, rows, styles))
    for row in found.rows:
        for said in row.said:
            err.print(f"{row.fault}: {said}", style="red")
    well = sum(row.ok for row in found.rows)
    out.print(f"{well} of {len(found.rows)} faults caught, with their honest runs passed")


def _list(path: Path | None, depth: str, only: Sequence[str], *, faulty: bool) -> None:
    """What there is to plant, to try, or to try on a subject."""
    from secure_fl.audit.suite.catalogue import checks, faults

    if path is not None:
        _list_applying(path, depth, only)
    elif faulty:
        rows = [[each.name, each.check] for each in faults()]
        out.print(Sheet("faults", ["name", "caught by"], rows))
    else:
        rows = [[each.name, each.tried] for each in checks()]
        out.print(Sheet("checks", ["name", "asks"], rows))


def _list_applying(path: Path, depth: str, only: Sequence[str]) -> None:
    from secure_fl.audit.check import Depth
    from secure_fl.audit.subject import Subject
    from secure_fl.audit.suite.planning import plan_audit

    plan = plan_audit(Subject.of(path), Depth(depth), only)
    rows = [[each.check.name, round(each.seconds), each.check.tried] for each in plan.chosen]
    out.print(Sheet(f"applies, at depth {depth}", ["check", "seconds", "asks"], rows))
    refused = [[each.check, each.why] for each in plan.refused]
    out.print(Sheet("does not apply", ["check", "why"], refused))


@contextmanager
def _resumable(what: str) -> Iterator[None]:
    """Say how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        said = f"stopped; {what} are kept, and the same command goes on from there"
        err.print(said, style="yellow")
        raise
