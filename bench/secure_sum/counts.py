"""What it costs to take nobody's word for counts, and what a round costs by its number of clients.

    python -m bench.secure_sum.counts [--clients 16 64 256] [--repeats 5] [--page]

For each protection and number of clients a round of four pools runs in one process, with the graph
that a run would take. Then one who opens checks the proof again by itself, as on a machine of its
own: signatures, seeds, mask keys, the sum of blocks 0, and decryption where it has the key. Bytes
are the proof's, sent to everybody who opens, as a share of all bytes of a round of a million fields
(K·P). Seconds of a round are processor time of all parties together, for 4,000 fields: what is
there whatever the model. Rows go to `bench/results/secure_sum_counts.csv`; `--page` writes them
into `docs/secure-sum-speed.md`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np

from bench.harness import RESULTS, append_row, provenance
from bench.secure_sum.embedded import EmbeddedFederation
from bench.secure_sum.embedded_round import EmbeddedRound, Outcome
from bench.secure_sum.page import COUNTS_CSV, write_page
from secure_fl.config.security import SecurityConfig
from secure_fl.secure_sum.block_codec import body_bytes
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.counts import proved_head
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.sizes import sum_bytes

PROTECTIONS = {
    "masked": ("masked", "clients"),
    "bfv+masked, clients": ("bfv+masked", "clients"),
    "bfv+masked, authority": ("bfv+masked", "authority"),
}
POOLS, FIELDS = 4, 1_000_000
SMALL = BlockShape(POOLS, 1000)
AT_MOST = {16: 0.05}
"""Share of a round's bytes that the proof may take."""


def measure(system: str, clients: int, repeats: int) -> dict[str, object]:
    """One row."""
    protection, holder = PROTECTIONS[system]
    federation = EmbeddedFederation(
        clients, protection=protection, key_holder=holder, rotation_rounds=1000
    )
    seconds = []
    for number in range(1 + max(1, repeats // 2)):
        begin = time.process_time()
        running, outcome = one_round(federation, number)
        seconds.append(time.process_time() - begin)
    evidence = running.server._proof()
    checks = [milliseconds(running, evidence) for _ in range(repeats)]
    openers = 1 if holder == "authority" else clients
    proof, rest = (
        openers * sum(map(len, evidence)),
        bytes_of(running.plan, outcome, evidence, openers),
    )
    return {
        "clients": clients,
        "system": system,
        "neighbours": running.plan.neighbourhood - 1,
        "proof, B to each": sum(map(len, evidence)),
        "proof, ms to check": f"{median(checks):.3g}",
        "share of a round's bytes": f"{proof / (proof + rest):.3g}",
        "round, s": f"{median(seconds[1:]):.3g}",
        "verdict": ""
        if clients not in AT_MOST
        else "met"
        if proof <= AT_MOST[clients] * (proof + rest)
        else "NOT MET",
    }


def one_round(federation: EmbeddedFederation, number: int) -> tuple[EmbeddedRound, Outcome]:
    """A round of the whole federation, by the rules that a run would take."""
    rules, names = SecurityConfig().sums(len(federation.clients)), list(federation.clients)
    settings = {
        "fewest": rules.survivors,
        "threshold": rules.threshold,
        "degree": rules.degree,
        "colluders": rules.colluders,
    }
    running = federation.begin(number, SMALL, minimum=3, bound=500, head_bound=1, **settings)
    values = np.arange(SMALL.width) - 500
    for place, name in enumerate(names):
        assert (
            running.add(running.protect(name, BlockVector.one_hot(SMALL, place % POOLS, values)))
            is None
        )
    return running, running.open()


def milliseconds(running: EmbeddedRound, evidence: tuple[bytes, ...]) -> float:
    """Processor time of one who opens, who has seen nothing of it before."""
    server, client = running.server, next(iter(running.clients.values()))
    opener = (running._authority or client)._opener
    begin = time.process_time()
    proved_head(
        server._book, None if opener is None else opener.cipher, server._survivors, (), evidence
    )
    return 1000 * (time.process_time() - begin)


def bytes_of(plan: RoundPlan, outcome: Outcome, evidence: tuple[bytes, ...], openers: int) -> int:
    """Everything else that a round of a million fields sends: what this one sent, with blocks of
    that width.
    """
    clients = len(plan.cohort)
    sent = sum(outcome.up.values()) + sum(outcome.down.values()) - openers * sum(map(len, evidence))
    wide = RoundPlan(
        plan.protection,
        plan.roster,
        0,
        BlockShape(POOLS, FIELDS // POOLS),
        plan.server,
        key_holder=plan.key_holder,
        authority="authority",
    )
    growth = sum(
        body_bytes(wide, block) - body_bytes(plan, block) for block in range(plan.shape.blocks)
    )
    opened = sum(
        sum_bytes(wide, block) - sum_bytes(plan, block) for block in range(1, plan.shape.blocks)
    )
    receivers = {"clients": clients, "authority": 1}[plan.opener]
    return sent + clients * growth + receivers * opened


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page", action="store_true", help="write docs/secure-sum-speed.md")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV")
    arguments = parser.parse_args()
    where = provenance(("tenseal", "cryptography"))
    for clients in arguments.clients:
        for system in PROTECTIONS:
            row = measure(system, clients, arguments.repeats)
            append_row(COUNTS_CSV, row, where, arguments.results)
            print(
                ", ".join(f"{name} {value}" for name, value in row.items() if value != ""),
                flush=True,
            )
    if arguments.page:
        print(write_page(arguments.results))


if __name__ == "__main__":
    main()
