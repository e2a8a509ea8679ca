"""Every shipped variant on every target, judged: what would make a kernel slow or unlaunchable and
shows in its binary.

    python -m secure_fl_kernels.proof.matrix                    the full matrix as CSV, findings
                                                                to standard error
    python -m secure_fl_kernels.proof.matrix --core             the part of it that CI runs
    python -m secure_fl_kernels.proof.matrix --write-snapshot   renew the committed costs of the hot
                                                                loops (of what is compiled: --core
                                                                or --target renew a part)

The snapshot holds slots and exponentials per similarity of each hot loop, so that a change that
makes one dearer fails a test on a machine without a GPU. Renew it in the commit that changes a
kernel, and say there why a number went up.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from pathlib import Path
from typing import Literal

import triton

from secure_fl_kernels.gpu.variants import ARCHITECTURES, Variant
from secure_fl_kernels.proof.binary import Binary, Failure, compile_all
from secure_fl_kernels.proof.loop import Cost, cost, precision
from secure_fl_kernels.proof.targets import FAMILIES, TARGETS, Target

SNAPSHOT = Path(__file__).with_name("snapshot.json")
SLACK = 1.05
"""A hot loop may grow by this factor over the snapshot: another build of the same compiler may
schedule a few instructions otherwise.
"""

Kind = Literal[
    "not compiled",
    "spills",
    "registers",
    "shared memory",
    "tensor memory",
    "no matrix instruction",
    "no hot loop",
    "slots",
    "exponentials",
    "not in snapshot",
]


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one binary.

    Attributes:
        found: the number, or in words what is there instead.
        limit: what is allowed.
    """

    kind: Kind
    variant: str
    target: str
    found: str | float
    limit: str | float

    def __str__(self) -> str:
        return (
            f"{self.target} {self.variant}: {self.kind}: {_short(self.found)}, allowed "
            f"{_short(self.limit)}"
        )


@dataclass(frozen=True)
class Held:
    """Slots and exponentials per similarity that the snapshot allows."""

    slots: float
    exps: float


@dataclass(frozen=True)
class Snapshot:
    """Costs by `target/variant`, and the triton that compiled them: another one's slots are
    not compared.
    """

    triton: str
    held: Mapping[str, Held]

    def of(self, variant: Variant, target: Target) -> Held | None:
        return self.held.get(f"{target.name}/{variant.name}")


@dataclass(frozen=True)
class Verdict:
    """One variant on one target: its binary or why there is none, its hot loop's cost, and what is
    wrong with it.
    """

    result: Binary | Failure
    cost: Cost | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Job:
    """Variants of one kernel for one target, compiled together."""

    target: Target
    kernel: str
    variants: tuple[Variant, ...]

    def __str__(self) -> str:
        return f"{self.target.name}-{self.kernel}"


def judge(result: Binary | Failure, snapshot: Snapshot, cost: Cost | None = None) -> list[Finding]:
    """Everything wrong with a binary; `cost` is its hot loop's."""
    variant, target = result.variant, result.target

    def finding(kind: Kind, found: str | float, limit: str | float) -> Finding:
        return Finding(kind, variant.name, target.name, found, limit)

    if isinstance(result, Failure):
        return [finding("not compiled", result.reason, "a binary")]
    used = (
        ("spills", result.spills, 0),
        ("registers", result.registers, target.registers),
        ("shared memory", result.shared, target.shared),
        ("tensor memory", result.columns, target.columns),
    )
    # literals in a tuple
    findings = [finding(kind, value, limit) for kind, value, limit in used if value > limit]  # type: ignore[arg-type]
    if variant.loop is None:
        return findings
    if cost is None:
        return [*findings, finding("no hot loop", "no loop with products", "one")]
    # small tiles, which the newest instructions do not take, are its only way
    older = "tf32x3" in variant.constants.values() and cost.matrix
    if (
        precision(result) in target.units
        and not older
        and not any(name.startswith(target.matrix) for name in cost.matrix)
    ):
        findings.append(
            finding(
                "no matrix instruction", ", ".join(sorted(cost.matrix)) or "none", target.matrix
            )
        )
    return findings + [finding(*parts) for parts in _dearer(cost, snapshot, result)]


def _dearer(cost: Cost, snapshot: Snapshot, result: Binary) -> Iterator[tuple[Kind, float, float]]:
    """Of a target that is no family, exponentials are held to those of the family whose tiles it
    runs, and slots to nothing.
    """
    variant, target = result.variant, result.target
    family = TARGETS[target.tiles]
    held, like = snapshot.of(variant, target), snapshot.of(variant, family)
    allowed = min(_most_exponentials(variant), inf if like is None else like.exps)
    if cost.exps > allowed * SLACK:
        yield "exponentials", cost.exps, allowed
    if held is None and target.name == family.name:
        yield "not in snapshot", cost.slots, 0.0
    if (
        held is not None
        and snapshot.triton == triton.__version__
        and cost.slots > held.slots * SLACK
    ):
        yield "slots", cost.slots, held.slots


def _most_exponentials(variant: Variant) -> float:
    """One for a similarity, whatever the snapshot says; with a running maximum two, since either
    side of a pair has a scale of its own.
    """
    return 2.0 if variant.constants.get("ONLINE") else 1.0


def examine(job: Job, snapshot: Snapshot) -> list[Verdict]:
    """Compile a job's variants and judge each."""
    verdicts = []
    for result in compile_all(job.variants, job.target):
        price = cost(result) if isinstance(result, Binary) else None
        verdicts.append(Verdict(result, price, tuple(judge(result, snapshot, price))))
    return verdicts


def jobs(targets: Iterable[Target] = FAMILIES, core: bool = False) -> list[Job]:
    """What is shipped, by target and kernel.

    Args:
        core: the part that CI has time for; see `core_of`.

    Raises:
        ValueError: two variants of one family share a name.
    """
    from secure_fl_kernels.gpu.catalogue import shipped

    planned = []
    for target in targets:
        variants = sorted(shipped(target.tiles), key=lambda variant: variant.name)
        names = [variant.name for variant in variants]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"{target.tiles} ships several variants called {', '.join(sorted(twice))}"
            )
        kept = core_of(variants, target) if core else variants
        planned += [
            Job(target, kernel, tuple(group))
            for kernel, group in groupby(kept, key=lambda variant: _parts(variant)[0])
        ]
    return planned


def core_of(variants: Sequence[Variant], target: Target) -> list[Variant]:
    """The part of a family's variants that CI compiles, in order.

    Of each kernel one variant in half precision and one in fp32, at 128 dimensions where there are
    such: the last by name, which is the most exact and does the most. Kernels whose time is in a
    hot loop on every target, and on sm90 at 512 dimensions in half precision too; all others where
    that differs most, on sm90 and gfx942.
    """
    chosen: dict[tuple[str, ...], Variant] = {}
    for variant in variants:
        kernel, dtype, width = _parts(variant)
        quadratic = variant.loop is not None
        if dtype == "fp16" or not (quadratic or target.name in ("sm90", "gfx942")):
            continue
        if width == "128" or (kernel, dtype) not in chosen:
            chosen[kernel, dtype] = variant
        if width == "512" and dtype != "fp32" and quadratic and target.name == "sm90":
            chosen[kernel, dtype, width] = variant
    return sorted(chosen.values(), key=lambda variant: variant.name)


def _parts(variant: Variant) -> tuple[str, str, str]:
    """Kernel, dtype without how its products are computed, and width, of a name such as
    `ntxent_sums/fp32.tf32x3/128`.
    """
    kernel, dtype, width = [*variant.name.split("/"), "", ""][:3]
    return kernel, dtype.split(".")[0], width


def run(
    jobs: Sequence[Job], snapshot: Snapshot, progress: Callable[[Verdict], object] = lambda _: None
) -> list[Verdict]:
    """Examine every job, telling `progress` of each verdict."""
    verdicts = []
    for job in jobs:
        for verdict in examine(job, snapshot):
            progress(verdict)
            verdicts.append(verdict)
    return verdicts


def read_snapshot(path: Path = SNAPSHOT) -> Snapshot:
    """The committed costs; empty where there is no file yet."""
    if not path.exists():
        return Snapshot(triton.__version__, {})
    read = json.loads(path.read_text())
    return Snapshot(
        read["triton"], {name: Held(*pair) for name, pair in read["slots and exponentials"].items()}
    )


def write_snapshot(
    verdicts: Iterable[Verdict], path: Path = SNAPSHOT, shipped: Iterable[str] | None = None
) -> None:
    """Commit to the costs of these verdicts, one line each, so that a diff shows what changed.

    Args:
        shipped: names `target/variant` that there are: what the file holds of them and was not
            judged now stays. Without it the file holds these verdicts alone.
    """
    before = (
        read_snapshot(path)
        if shipped is not None and path.exists()
        else Snapshot(triton.__version__, {})
    )
    kept = set(shipped or ()) if before.triton == triton.__version__ else set()
    rows = {name: held for name, held in before.held.items() if name in kept}
    for verdict in verdicts:
        if verdict.cost is not None:
            name = f"{verdict.result.target.name}/{verdict.result.variant.name}"
            rows[name] = Held(round(verdict.cost.slots, 3), round(verdict.cost.exps, 3))
    lines = ",\n".join(
        f"    {json.dumps(name)}: [{rows[name].slots}, {rows[name].exps}]" for name in sorted(rows)
    )
    path.write_text(
        f'{{\n  "triton": "{triton.__version__}",\n  "slots and '
        f'exponentials": {{\n{lines}\n  }}\n}}\n'
    )


COLUMNS = (
    "target", "variant", "warps", "stages", "registers", "spills", "shared_bytes", "tensor_columns",
    "slots_per_element", "exps_per_element", "tensor_cycles", "exponential_cycles", "issue_cycles",
    "bound", "seconds", "findings",
)  # fmt: skip


def row(verdict: Verdict) -> tuple[str | float, ...]:
    """One line of the CSV; what does not apply is empty."""
    result, price = verdict.result, verdict.cost
    head = (result.target.name, result.variant.name, result.variant.warps, result.variant.stages)
    kinds = "; ".join(finding.kind for finding in verdict.findings)
    if isinstance(result, Failure):
        return (*head, *("" for _ in COLUMNS[4:-1]), kinds)
    loop = (
        ("",) * 6
        if price is None
        else (
            round(price.slots, 3),
            round(price.exps, 3),
            *(round(c, 4) for c in price.cycles.values()),
            price.bound,
        )
    )
    return (
        *head,
        result.registers,
        result.spills,
        result.shared,
        result.columns,
        *loop,
        round(result.seconds, 2),
        kinds,
    )


def _short(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3f}".rstrip("0").rstrip(".")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this module; 1 where something was found."""
    chosen = _parser().parse_args(arguments)
    targets = [TARGETS[name] for name in chosen.target] if chosen.target else FAMILIES
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    verdicts = run(
        jobs(targets, chosen.core), read_snapshot(), lambda verdict: writer.writerow(row(verdict))
    )
    if chosen.write_snapshot:
        write_snapshot(
            verdicts,
            shipped=[
                f"{job.target.name}/{variant.name}" for job in jobs() for variant in job.variants
            ],
        )
        verdicts = [
            Verdict(v.result, v.cost, tuple(judge(v.result, read_snapshot(), v.cost)))
            for v in verdicts
        ]
    findings = [finding for verdict in verdicts for finding in verdict.findings]
    print(
        *findings,
        f"{len(findings)} findings in {len(verdicts)} binaries",
        sep="\n",
        file=sys.stderr,
    )
    return int(bool(findings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m secure_fl_kernels.proof.matrix",
        description="Compile and judge every shipped kernel.",
    )
    parser.add_argument(
        "--target",
        action="append",
        choices=list(TARGETS),
        help=f"repeatable; default {' '.join(ARCHITECTURES)}",
    )
    parser.add_argument("--core", action="store_true", help="the part that CI runs")
    parser.add_argument(
        "--write-snapshot",
        action="store_true",
        help=f"write what is compiled now into {SNAPSHOT.name}; the rest of it stays",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
