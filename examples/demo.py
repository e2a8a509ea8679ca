"""The main job on real data: MNIST-5k, 16 clients in 4 rotation groups.

    python examples/demo.py [--out demo]

Pre-trains one encoder by federated SSD, then clusters five times: one global model (FedAvg), pools
from a random start (IFCA), pools from the SSD encoder (CP-CFL), pools from the default sketch
start, and these once more with every example hidden (differential privacy, ε = 8): on an encoder of
two noised sums, view moments, in place of the SSD encoder, which nobody noised. All sums are under
masks and encryption; a short run in the open shows what that costs. Runs go two at a time. Prints a
table and writes OUT/report.html; whatever the runs gave is what is shown.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from secure_fl import FederationConfig
from secure_fl.baselines.methods import Tables, as_method, with_tables
from secure_fl.cli.console import Sheet
from secure_fl.config_file import dump_config
from secure_fl.errors import RunFolderError
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.summary import Summary
from secure_fl.quantities import clock, size
from secure_fl.report.page import write_report
from secure_fl.report.plots import save_comparison

ENCODER, OPEN, PRIVATE = "SSD encoder", "in the open", "private"
ROWS = {
    "global model": "fedavg",
    "random start": "ifca",
    "SSD start": "cp-cfl",
    "sketch start": "sketch",
}
AT_ONCE = 2

HIDDEN: Tables = {
    "privacy": {"unit": "example", "epsilon": 8.0},
    "pretrain": {"method": "view_moments", "rounds": 2},
    "pools": {"encoder": "frozen", "lr": 0.5, "batch_size": 64},
    "model": {"norm": "group"},
    "objective": {"form": "normalized"},
    "evaluate": {"probe_epochs": 0},
}

BASE = FederationConfig(
    data={"sources": [{"name": "mnist5k"}], "test_limit": 250},
    partition={"kind": "rotation", "clients": 16, "groups": 4},
    pretrain={"rounds": 10, "local_epochs": 3, "batch_size": 64},
    pools={"count": 4},
    evaluate={"probe_epochs": 50},
)


def configurations(folder: Path) -> dict[str, FederationConfig]:
    """The encoder's run and those that the table compares."""
    only_encoder: Tables = {"pools": {"enabled": False}}
    no_encoder: Tables = {"pretrain": {"mode": "none"}}
    from_encoder: Tables = {
        "pretrain": {"mode": "load", "load_from": str(folder / slug(ENCODER))},
        "evaluate": {"probe_epochs": 0},
    }
    made = {ENCODER: with_tables(BASE, only_encoder)}
    for name, method in ROWS.items():
        needs_encoder = method in ("cp-cfl", "sketch")
        made[name] = with_tables(
            as_method(BASE, method), from_encoder if needs_encoder else no_encoder
        )
    made[PRIVATE] = with_tables(as_method(BASE, "sketch"), HIDDEN)
    made[OPEN] = with_tables(
        made["random start"], {"security": {"protection": "plain"}, "pools": {"rounds": 2}}
    )
    return {name: config.model_copy(update={"name": name}) for name, config in made.items()}


def slug(name: str) -> str:
    """A run's name as a folder's."""
    return name.lower().replace(" ", "-")


def run_one(name: str, config: FederationConfig, folder: Path, console: Console) -> None:
    """One run in a process of its own, its progress printed line by line."""
    settings = folder / f"{slug(name)}.toml"
    settings.write_text(dump_config(config), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "secure_fl.cli.main",
        "run",
        str(settings),
        "--out",
        str(folder / slug(name)),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"\w+ \d+/\d+|warning|\[", line):
                console.print(f"{name:<13} {line.rstrip()}", markup=False)
    if process.returncode:
        remedy = "read its last lines above"
        raise RunFolderError("the run failed", field=name, value=process.returncode, remedy=remedy)


def run_all(folder: Path, console: Console) -> None:
    """Everything, at most two runs at a time; the runs that need the encoder wait for it."""
    configs = configurations(folder)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        encoder = pool.submit(run_one, ENCODER, configs[ENCODER], folder, console)
        others = [
            pool.submit(run_one, name, configs[name], folder, console)
            for name in ("random start", "global model", PRIVATE)
        ]
        encoder.result()
        others += [
            pool.submit(run_one, name, configs[name], folder, console)
            for name in ("SSD start", "sketch start", OPEN)
        ]
        for other in others:
            other.result()


def show(folder: Path, console: Console) -> None:
    """The table, the page and the picture, from what the run folders hold."""
    summaries = {
        name: RunFolder.open(folder / slug(name)).read_summary()
        for name in (ENCODER, *ROWS, PRIVATE)
    }
    columns = [
        "run",
        "accuracy",
        "spread",
        "worst client",
        "pools in use, round by round",
        "ARI",
        "bytes",
        "seconds",
    ]
    shown = {name: summaries[name] for name in (*ROWS, PRIVATE)}
    console.print(Sheet("", columns, [_row(name, summary) for name, summary in shown.items()]))
    in_the_open = RunFolder.open(folder / slug(OPEN)).read_summary()
    for line in (
        _beginning(summaries[ENCODER]),
        _private(summaries[PRIVATE], summaries["sketch start"]),
        _price(in_the_open, summaries["random start"]),
        "One seed; bench/results/pool_starts.csv has rates over five seeds for every start and "
        "seven scenarios.",
    ):
        console.print(line, markup=False)
    best_first = sorted(summaries, key=lambda name: name != "sketch start")
    write_report([folder / slug(name) for name in best_first], folder / "report.html")
    drawn = [(name, each.pools) for name, each in shown.items() if each.pools is not None]
    save_comparison(drawn, folder / "result.png")
    console.print(f"Look at {folder / 'report.html'} and {folder / 'result.png'}.", markup=False)


def _row(name: str, summary: Summary) -> list[object]:
    """One run's row of the table."""
    pools, costs = summary.pools, summary.costs.values()
    assert pools is not None
    in_use = [sum(count > 0 for count in counts) for counts in pools.occupancy_per_round]
    return [
        name,
        pools.accuracy,
        pools.accuracy_std,
        pools.accuracy_min,
        " ".join(map(str, in_use)),
        pools.ari,
        size(sum(cost.bytes_down + cost.bytes_up for cost in costs)),
        f"{sum(cost.seconds or 0 for cost in costs):.0f}",
    ]


def _beginning(encoder: Summary) -> str:
    """What the encoder cost that two of the starts begin from, and what it is worth."""
    cost, measured = encoder.costs["pretrain"], encoder.representation
    assert measured is not None
    assert measured.initial is not None
    assert measured.pretrained is not None
    return (
        f"The SSD and sketch starts begin from one {ENCODER}: {cost.seconds:.0f} s and "
        f"{size(cost.bytes_down + cost.bytes_up)} more, kNN "
        f"{measured.initial['knn']:.3f} -> {measured.pretrained['knn']:.3f}."
    )


def _private(hidden: Summary, shown: Summary) -> str:
    """What comes of hiding every example."""
    privacy = hidden.privacy
    assert privacy is not None
    ours, beside = ((each.pools and each.pools.accuracy) or 0.0 for each in (hidden, shown))
    return (
        f"The private row hides each example from everybody else (ε = {privacy.epsilon:.2f}, δ "
        f"= {privacy.delta:g}); its accuracy is {abs(ours - beside):.3f} "
        f"{'above' if ours > beside else 'below'} that of the sketch start, whose encoder is "
        "another one, trained round by round and not private."
    )


def _price(plain: Summary, protected: Summary) -> str:
    """What protection costs a round of clustering, beside the same in the open."""
    per_round = []
    for summary in (plain, protected):
        cost = summary.costs["cluster"]
        whole = cost.bytes_up, cost.seconds or 0.0, cost.sum_seconds or 0.0
        per_round.append([each / cost.rounds for each in whole])
    (up, seconds, _), (safe_up, safe_seconds, sums) = per_round
    return (
        f"A round of clustering under bfv+masked: {size(safe_up)} to the server and "
        f"{safe_seconds:.1f} s, {sums:.1f} s of it the secure sum with all parties in one process; "
        f"in the open {size(up)} and {seconds:.1f} s."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder to write (default demo)"
    )
    folder: Path = parser.parse_args().out
    console = Console(highlight=False, width=150)
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} already holds something; delete it or pass --out")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    run_all(folder, console)
    show(folder, console)
    console.print(f"{clock(time.perf_counter() - began)} in all.")


if __name__ == "__main__":
    main()
