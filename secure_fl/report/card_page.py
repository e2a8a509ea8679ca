"""The card as a page of at most two sheets of paper: what `privacy-card.json` says, and nothing
else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from secure_fl.report.audited import OUTDATED, at_least, in_words, part_of
from secure_fl.report.findings import ADJACENCY, PROTECTIONS
from secure_fl.report.names import printable
from secure_fl.report.page import environment
from secure_fl.report.tables import (
    NONE,
    Cell,
    Table,
    clauses,
    confidence,
    epsilon,
    share,
    table,
)

if TYPE_CHECKING:
    from secure_fl.report.card import AuditFacts, Claimed, DataFacts, PrivacyCard

_MOST = 7
"""Entries of a list that are shown: the page stays on two sheets, the file has all of them."""
_MOST_BOUNDS = 5


def card_page(card: PrivacyCard) -> str:
    """The page. Raises DependencyError: jinja2 is missing."""
    return (
        environment("report")
        .get_template("card.html.j2")
        .render(
            card=card,
            name=printable(card.run.name),
            headline=_headline(card),
            facts=_facts(card),
            claims=None if card.privacy is None else _claim_table(card.privacy),
            readers=_reader_table(card),
            bounds=None if card.audit is None else _bound_table(card.audit),
            unprotected=_first(card.unprotected),
            lists=_lists(card),
            record=_record(card),
            allowed="default-src 'none'; style-src 'unsafe-inline'",
        )
    )


def _headline(card: PrivacyCard) -> Cell:
    """The whole claim in a line."""
    said = card.privacy
    if said is None:
        return Cell("No differential privacy: nothing of this run is noised.", mark="bad")
    if said.covers != "the whole run":
        text = f"No differential privacy but of sketches: ε = {_shown(said.epsilon)} covers "
        return Cell(f"{text}{said.covers}.", mark="bad")
    bound = "no bound" if said.epsilon == "no bound" else f"ε = {_shown(said.epsilon)}"
    return Cell(f"{bound} at δ = {said.delta:g} for one {said.unit}, over {said.covers}.")


def _shown(value: float | str) -> str:
    return epsilon(None if isinstance(value, str) else value)


def _facts(card: PrivacyCard) -> list[tuple[str, str]]:
    """What is said in a few words each, by heading."""
    found = []
    if card.privacy is not None:
        found += _unit(card.privacy)
    holder = "" if card.sums.key_holder is None else f"; key holder: {card.sums.key_holder}"
    least = f"; a pool needs {card.sums.min_pool_clients} clients"
    robust = "" if card.sums.robust == "none" else f"; averages: {card.sums.robust}"
    sums = f"{PROTECTIONS[card.sums.protection]}{holder}{least}{robust}"
    found += [("sums", sums), ("data", _data(card.data)), ("accuracy", _accuracy(card))]
    audit = "never audited, or its experimenter's" if card.audit is None else _audit(card.audit)
    fits = "everything in the folder fits together, as `secure-fl verify` checks it"
    wrong = f"what does not fit: {card.record.findings}; do not rely on this record"
    return [*found, ("record", fits if card.record.fits else wrong), ("audit", audit)]


def _unit(said: Claimed) -> list[tuple[str, str]]:
    """Whose presence an ε hides, and what it means."""
    budget = "" if said.budget is None else f", budget {said.budget:g}"
    found = [
        ("unit", f"one {said.unit}; {said.releases} noised releases{budget}"),
        ("compared", f"{said.adjacency}: a data set {ADJACENCY[said.adjacency]}"),
    ]
    if said.epsilon == "no bound":
        return found
    return [*found, ("in words", in_words(said.unit, float(said.epsilon), said.delta))]


def _data(data: DataFacts) -> str:
    shape = "" if data.shape is None else f", each {' × '.join(map(str, data.shape))}"
    examples = "" if data.examples is None else f"{data.examples} examples{shape}; "
    classes = "" if data.classes is None else f"; {data.classes} classes"
    return f"{examples}{data.clients} clients{classes}"


def _accuracy(card: PrivacyCard) -> str:
    found = card.accuracy
    if found is None or found.mean is None:
        return "not in this record" if found is None else "not measured: trained without labels"
    told = f"{share(found.mean)}, mean over clients, ± {share(found.deviation)}"
    majority = found.most_frequent_class
    beside = (
        "" if majority is None else f"; who always says the most frequent class {share(majority)}"
    )
    outside = "; not covered by any ε" if card.privacy is not None else ""
    return f"{told}; worst client {share(found.worst)}{beside}{outside}"


def _audit(audit: AuditFacts) -> str:
    asked = len((*audit.broken, *audit.not_tried, *audit.held))
    part = part_of(asked, len(audit.left_out))
    found = f"{part}{audit.verdict}, at depth {audit.depth}, {audit.made}"
    named = {
        "broken": audit.broken,
        "not tried": audit.not_tried,
        "held": audit.held,
        "left out": audit.left_out,
        "do not apply": audit.not_applicable,
    }
    told = [f"{len(each)} {name}: {', '.join(each)}" for name, each in named.items() if each]
    counts = "" if audit.broken else "; 0 broken"
    said = f"{found}{counts}; {'; '.join(told) or 'no check was tried'}"
    return said if audit.current else f"{OUTDATED}, and says nothing of this one. It said: {said}"


def _claim_table(said: Claimed) -> Table:
    rows: list[list[Cell | str]] = [
        [each.adversary, Cell(_shown(each.epsilon)), f"{each.delta:g}", f"one {each.unit}"]
        for each in said.adversaries
    ]
    return table(
        f"ε against each adversary, over {said.covers}", "/who looks/ | ε | δ | /hidden/", rows
    )


def _reader_table(card: PrivacyCard) -> Table:
    rows = [
        [
            row.adversary,
            "; ".join(clauses(row.holds)) or "nothing is kept from it",
            "; ".join(clauses(row.reads)),
        ]
        for row in card.readers
    ]
    return table("Who reads what of the sums", "/who looks/ | /cannot read/ | /reads/", rows)


def _bound_table(audit: AuditFacts) -> Table | None:
    """The largest bounds."""
    found = [each for each in audit.bounds if each.kind == "bound"]
    found.sort(key=lambda each: float("-inf") if each.epsilon is None else -each.epsilon)
    rows: list[list[Cell | str]] = [
        [
            f"{each.check}: {each.method}",
            at_least(float("inf") if each.epsilon is None else each.epsilon),
            f"{each.delta:g}",
            Cell(NONE if each.claimed is None else epsilon(each.claimed)),
            confidence(each.confidence),
        ]
        for each in found[:_MOST_BOUNDS]
    ]
    more = "" if len(found) <= _MOST_BOUNDS else f": the largest of {len(found)}"
    titles = "/method/ | ε at least | δ | claimed of what was played | confidence"
    return table(f"Lower bounds on ε that the audit found{more}", titles, rows) if rows else None


def _lists(card: PrivacyCard) -> list[tuple[str, str, Sequence[str]]]:
    """Lists by heading, with the mark of each."""
    found = (
        ("These ε assume", "", card.assumptions),
        ("These ε do not cover", "", card.not_covered),
    )
    return [(title, mark, _first(texts)) for title, mark, texts in found if texts]


def _first(texts: Sequence[str]) -> Sequence[str]:
    more = len(texts) - _MOST
    return texts if more <= 0 else [*texts[:_MOST], f"and {more} more in privacy-card.json"]


def _record(card: PrivacyCard) -> list[tuple[str, str]]:
    """By what the folder is known again."""
    record = card.record
    found: list[tuple[str, Any]] = [
        ("SHA-256 of config.toml", record.configuration),
        ("chain of the transcript, its last hash", record.transcript or "none"),
        (
            "chain of the ledger, its last hash",
            None if record.ledger is None else record.ledger.head,
        ),
        ("signatures", record.signatures),
        ("software", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
        ("seed", str(card.run.seed)),
    ]
    return [(name, value) for name, value in found if value is not None]
