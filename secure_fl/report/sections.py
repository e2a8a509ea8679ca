"""What the page says of each run, as tables: its pools, its clients, who can read what, and what
it cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from secure_fl.data.summary import ClientSummary
from secure_fl.federation.run_folder.summary import FinalPools, SketchPrivacy
from secure_fl.federation.run_folder.tags import REPORT
from secure_fl.finished.summary import SIMULATED
from secure_fl.quantities import clock, size
from secure_fl.report.audited import badge
from secure_fl.report.findings import closed_pools, has_minimum, is_plain, largest, protection
from secure_fl.report.runs import Run
from secure_fl.report.tables import (
    NONE,
    Cell,
    Table,
    clauses,
    count,
    epsilon,
    number,
    some,
    spans,
    table,
)
from secure_fl.report.tiles import members_of, totals

_MOST_NAMES = 12
_BY_ITSELF = (
    "Who sees what is said of parties that run apart, as in a deployment; here one process was all."
)
_BESIDE = (
    "This page itself is outside of these ε: accuracies, who holds what and who is where were "
    "computed from examples for the experimenter. Do not pass it on as if it were private."
)
Row = list[Cell | str]
_MISSING = object()
"""What stands for a client of whom no ε is recorded; None is one without a bound."""


def comparison(runs: Sequence[Run]) -> Table:
    """A row for each run."""
    titles = (
        "/run/ | accuracy | spread | worst client | pools in use | ARI | /sums/ | "
        "/differential privacy/ | to clients | to server | time"
    )
    rows = [_compared(run) for run in runs]
    return table("The runs compared", titles, rows, sortable=len(runs) > 1)


def _compared(run: Run) -> list[Cell]:
    pools, (seconds, down, up) = run.pools, totals(run)
    measured = [number(None)] * 5
    if pools is not None:
        in_use = Cell(f"{pools.active} of {len(pools.counts)}", sort=pools.active)
        figures = pools.accuracy, pools.accuracy_std, pools.accuracy_min
        measured = [*map(number, figures), in_use, number(pools.ari, 2)]
    sums = Cell(run.config.security.protection)
    if is_plain(run):
        sums = Cell("plain: read by the server", mark="bad")
    return [
        Cell(run.name),
        *measured,
        sums,
        privacy_in_short(run),
        Cell(size(down), sort=down),
        Cell(size(up), sort=up),
        Cell(NONE, sort=-1) if seconds is None else Cell(clock(seconds), sort=seconds),
    ]


def privacy_in_short(run: Run) -> Cell:
    """A run's ε in a few words."""
    said = run.summary.charged
    if said is None:
        return Cell("none", mark="bad")
    if isinstance(said, SketchPrivacy):
        return Cell(f"none; sketches alone ε = {epsilon(said.epsilon)}", mark="bad")
    worst = largest(said)
    if worst is None:
        return Cell(f"no bound for one {said.unit}", mark="bad")
    return Cell(f"ε ≤ {epsilon(worst)} for one {said.unit}", sort=worst)


def badges(run: Run) -> list[Cell]:
    """A run's protection and its audit's verdict, which stand beside its name."""
    said = privacy_in_short(run)
    text = said.text if said.text.startswith("ε") else f"differential privacy: {said.text}"
    sums = Cell(protection(run), mark="bad" if is_plain(run) else "")
    return [sums, Cell(text, mark=said.mark), badge(run)]


def pool_table(run: Run) -> Table | None:
    """A row for each pool; None where the record does not say who uses which."""
    pools, privacy = run.pools, run.summary.privacy
    if pools is None:
        return None
    spent = (privacy and privacy.pools) or {}
    titles = (
        "/pool/ | clients | /who/ | accuracy, mean | worst | /clients, by round/ | /not opened/"
    )
    rows = []
    for pool, members in enumerate(members_of(pools)):
        row = _pool_row(run, pools, pool, members)
        if spent:
            row.append(Cell(epsilon(spent[str(pool)]) if str(pool) in spent else NONE))
        rows.append(row)
    return table("Pools at the end of the run", titles + (" | ε" if spent else ""), rows)


def _pool_row(run: Run, pools: FinalPools, pool: int, members: Sequence[int]) -> list[Cell]:
    """One pool: who uses it, how well it serves them, how many did each round, and the rounds in
    which it stayed closed.
    """
    accuracies = [pools.accuracies[str(client)] for client in members]
    reached = [value for value in accuracies if value is not None]
    shut = closed_pools(run).rounds.get(pool, [])
    who = some([run.client(client) for client in members], _MOST_NAMES)
    return [
        Cell(f"pool {pool}", sort=pool, pool=pool),
        count(len(members)),
        Cell(who or "nobody", mark="" if members else "bad"),
        number(fmean(reached) if reached else None),
        number(min(reached, default=None)),
        Cell(" ".join(str(counts[pool]) for counts in pools.occupancy_per_round)),
        Cell(spans(shut) if shut else NONE, mark="bad" if shut else ""),
    ]


def pool_notes(run: Run) -> list[str]:
    """What decides whether a pool is opened, and what the record does not tell."""
    if not run.pool_count:
        return []
    least, unknown = run.config.security.min_pool_clients, closed_pools(run).unknown
    rule = (
        f"Minimum pool size: {least} clients in a round (security.min_pool_clients). A smaller "
        "pool is not opened and stays as it is."
    )
    notes = [rule] if has_minimum(run) else []
    notes += [f"{unknown[0].upper()}{unknown[1:]}."] if unknown else []
    groups = run.pools.accuracy_by_group if run.pools is not None else {}
    told = ", ".join(f"group {group}: {value:.3f}" for group, value in groups.items())
    return [*notes, f"Accuracy by known group: {told}."] if told else notes


def client_table(run: Run) -> Table | None:
    """A row for each client, with whatever the record holds of it; None where it holds nothing."""
    pools, privacy = run.pools, run.summary.privacy
    spent = {} if privacy is None else privacy.clients
    held = () if run.partition is None else run.partition.clients
    members = {member.client: member for member in held}
    accuracies = {} if pools is None else pools.accuracies
    choices = {} if pools is None else {int(who): pool for who, pool in pools.choices.items()}
    ids = sorted(members.keys() | choices.keys() | {int(client) for client in spent})
    if not ids:
        return None
    shown = {
        "/pool/": pools is not None,
        "accuracy": pools is not None,
        "training examples": bool(members),
        "test examples": bool(members),
        "known group": any(member.group is not None for member in members.values()),
        "/data/": any(member.note for member in members.values()),
        "ε": bool(spent),
    }
    heads = [title for title, is_shown in shown.items() if is_shown]
    rows = []
    for client in ids:
        told = choices.get(client), accuracies.get(str(client)), spent.get(str(client), _MISSING)
        cells = _client_cells(members.get(client), *told)
        name, sort = (
            (run.client(client), None) if run.client_names else (f"client {client}", client)
        )
        rows.append([Cell(name, sort=sort), *(cells[title] for title in heads)])
    title = "Clients, the pool each one uses and how well it serves them"
    if pools is None:
        title = "What each client holds"
    return table(title, " | ".join(["/client/", *heads]), rows, sortable=True)


def _client_cells(
    member: ClientSummary | None, pool: int | None, accuracy: float | None, spent: Any
) -> dict[str, Cell]:
    """Everything that may stand in a client's row, by heading."""
    unknown = Cell(NONE, sort=-1)
    return {
        "/pool/": unknown if pool is None else Cell(f"pool {pool}", sort=pool, pool=pool),
        "accuracy": number(accuracy),
        "training examples": count(None if member is None else member.examples),
        "test examples": count(None if member is None else member.test),
        "known group": count(None if member is None else member.group),
        "/data/": Cell(NONE if member is None else member.note, mark="quiet"),
        "ε": unknown if spent is _MISSING else Cell(epsilon(spent), sort=spent),
    }


def claim_table(run: Run) -> Table | None:
    """ε against each adversary; None where nothing is claimed."""
    said = run.summary.charged
    if said is None or not said.claims:
        return None
    rows: list[Row] = [
        [
            claim.adversary,
            _bound(claim.epsilon),
            Cell(f"{claim.delta:g}", sort=claim.delta),
            f"one {claim.unit}, {claim.adjacency}",
            claim.sampling,
        ]
        for claim in said.claims
    ]
    covers = (
        f": covers {said.covers}" if isinstance(said, SketchPrivacy) else ", over the whole run"
    )
    titles = "/who looks/ | ε | δ | /hidden/ | /sampling/"
    return table(f"ε against each adversary{covers}", titles, rows)


def _bound(value: float | None) -> Cell:
    return Cell(epsilon(value), sort=value, mark="bad" if value is None else "")


def claim_terms(run: Run) -> list[tuple[str, list[str]]]:
    """What the claims rest on and leave out, by heading; headings without anything are left out."""
    said, privacy = run.summary.charged, run.summary.privacy
    claims = () if said is None else said.claims
    outside = [] if privacy is None else list(privacy.outside)
    found = [
        ("What these ε assume", _terms([(each.adversary, each.assumes) for each in claims])),
        ("What these ε do not cover", _terms([(one.adversary, one.not_covered) for one in claims])),
        ("What is written outside of these ε, for the experimenter", outside),
    ]
    return [(heading, texts) for heading, texts in found if texts]


def _terms(claims: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Each once, with the adversary where it is not said of all."""
    found: dict[str, list[str]] = {}
    for adversary, texts in claims:
        for text in texts:
            found.setdefault(text, []).append(adversary)
    of = {
        text: "; ".join(dict.fromkeys(who)) for text, who in found.items() if len(who) < len(claims)
    }
    return [f"{text} (said against: {of[text]})" if text in of else text for text in found]


def claim_notes(run: Run) -> list[str]:
    """What a claim's table does not say."""
    said = run.summary.charged
    if said is None:
        return ["Nothing of this run is noised: no ε holds for anything that it releases."]
    kind = f"ε = {epsilon(said.epsilon)} at δ = {said.delta:g}, {said.unit} level, {said.adjacency}"
    told = f"{said.releases} releases, every one in ledger.json."
    if isinstance(said, SketchPrivacy):
        bare = "updates, choices of pools and models of this run have no differential privacy"
        return [f"{kind}, covers {said.covers}: {bare}. {told}"]
    largest_of = f"the largest of any client, of a budget of {said.budget:g}"
    found = [f"{kind}, {largest_of}. {told} ε of different units are never added."]
    found += [_BY_ITSELF] if SIMULATED in run.summary.unprotected else []
    return [*found, _BESIDE] if REPORT in said.outside else found


def secrecy_table(run: Run) -> Table | None:
    """Who can read what of the sums; None for a record of an earlier version."""
    if not run.summary.secrecy:
        return None
    nothing = Cell("nothing is kept from it", mark="bad")
    rows: list[Row] = [
        [
            row.adversary,
            Cell("", items=clauses(row.holds)) if row.holds else nothing,
            Cell("", items=clauses(row.reads)),
        ]
        for row in run.summary.secrecy
    ]
    titles = "/who looks/ | /cannot read/ | /reads/"
    return table("Who can read what of the sums", titles, rows)


def encoder_table(run: Run) -> Table | None:
    """What the encoder was worth before and after pre-training."""
    measured = run.summary.representation
    if measured is None or measured.pretrained is None:
        return None
    initial, measured_on = measured.initial or {}, measured.measured_on or {}
    rows: list[Row] = [
        [
            name.replace("_", " "),
            number(initial[name]),
            number(value),
            Cell(measured_on["fine_tune" if name.startswith("fine_tune") else name], mark="quiet"),
        ]
        for name, value in measured.pretrained.items()
    ]
    compared, how = "random | pre-trained", "pre-training"
    if run.config.pretrain.sums_moments:
        compared, how = "public features | with view moments", "two sums of view moments"
    titles = f"/measure/ | {compared} | /measured on/"
    return table(f"The encoder before and after {how}", titles, rows)


def cost_table(run: Run) -> Table:
    """A row for each phase."""
    rows: list[Row] = []
    for phase, cost in run.summary.costs.items():
        taken = (cost.seconds, cost.sum_seconds)
        times = [NONE if each is None else clock(each) for each in taken]
        rows.append([phase, count(cost.rounds), *times, size(cost.bytes_down), size(cost.bytes_up)])
    titles = "/phase/ | rounds | time | secure sum | to clients | to server"
    return table("Cost of each phase; bytes are of message bodies, over all clients", titles, rows)
