"""`verify` finds and names any changed byte, and any lie that signatures or ledger show."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation.verify.records import (
    FACTS,
    Written,
    as_written,
    chained,
    config,
    copied,
    forge,
    found_after,
    lines_of,
    of_kind,
    run,
)
from helpers import StopAfter

from secure_fl.crypto.envelope import Phase, read_header
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.federation.transcript.entries import PlanEntry, entry_of
from secure_fl.federation.verify.check import verify
from secure_fl.federation.verify.plan import Agreed
from secure_fl.federation.verify.rounds import Rounds
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.ledger import PrivacyLedger


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = config(pools={"enabled": False})
    return run(tmp_path_factory.mktemp("small") / "run", chosen)


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("under way") / "run"
    with pytest.raises(KeyboardInterrupt):
        run(folder, callbacks=[StopAfter(3, midway=True)])
    return folder


def said(folder: Path) -> list[tuple[str, str]]:
    """File and field of every finding."""
    return [(each.file, each.field) for each in verify(folder).findings]


# Bytes


@pytest.mark.parametrize(("which", "flips"), [("small", 200), ("finished", 60), ("under_way", 60)])
def test_a_flipped_byte_is_found_and_its_file_named_or_the_file_is_listed(
    tmp_path: Path, request: pytest.FixtureRequest, which: str, flips: int
) -> None:
    folder, coins = copied(request.getfixturevalue(which), tmp_path / "run"), random.Random(11)
    before = verify(folder)
    assert before.ok
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    missed = []
    for number in range(flips):
        path = files[number % len(files)]
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        place = coins.choice([0, len(data) - 1, coins.randrange(len(data))])
        flipped = bytes([data[place] ^ (1 << coins.randrange(8))])
        path.write_bytes(data[:place] + flipped + data[place + 1 :])
        found = verify(folder)
        named = any(each.file == name and each.field for each in found.findings)
        if not named and not listed(name, found.uncovered):
            missed.append((name, place))
        path.write_bytes(data)
    assert missed == []
    names = [path.relative_to(folder).as_posix() for path in files]
    assert sum(not listed(name, before.uncovered) for name in names) >= 8


def listed(name: str, uncovered: dict[str, str]) -> bool:
    return any(Path(name).match(known) or name.startswith(known) for known in uncovered)


def test_of_a_finished_run_nothing_but_its_lock_is_uncovered(finished: Path) -> None:
    assert set(verify(finished).uncovered) == {".lock*"}


def test_a_file_that_is_gone_or_added_is_told(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "run")
    (folder / "model" / "notes.txt").write_text("mine")
    assert verify(folder).uncovered["model/notes.txt"] == "nothing tells its content"
    for name in (
        "digests.json",
        "ledger.json",
        "partition.json",
        "model/pools.safetensors",
        "summary.json",
        "transcript.jsonl",
    ):
        (folder / name).rename(tmp_path / "away")
        assert name in {file for file, _ in said(folder)}, name
        (tmp_path / "away").rename(folder / name)
    assert said(folder) == []


# Lies that come with hashes made anew


def dropped(entries: Written) -> None:
    of_kind(entries, "sum")["survivors"].pop()


def opened(entries: Written) -> None:
    facts = of_kind(entries, "sum")
    facts["passing"] = [0, 1] if facts["passing"] != [0, 1] else [0]


def repeated(entries: Written) -> None:
    rounds = [facts for kind, facts, _ in entries if kind == "round"]
    rounds[-1]["round"] = of_kind(entries, "sum")["round"] = rounds[0]["round"]


def lowered(entries: Written) -> None:
    of_kind(entries, "round")["fewest"] = 1


def another(field: str, kind: str = "sum") -> Callable[[Written], None]:
    def change(entries: Written) -> None:
        of_kind(entries, kind)[field] = "ab" * 32

    return change


def swapped(entries: Written) -> None:
    uploads = of_kind(entries, "sum")["uploads"]
    first, second, *_ = uploads
    uploads[first], uploads[second] = uploads[second], uploads[first]


def unagreed(entries: Written) -> None:
    """Only one agreement is kept, fewer than open a secret."""
    place = max(number for number, (kind, *_) in enumerate(entries) if kind == "sum")
    kind, facts, evidence = entries[place]
    agreements = [each for each in evidence if each[4] == 5]
    entries[place] = (kind, facts, tuple(each for each in evidence if each not in agreements[1:]))


def unsigned(entries: Written) -> None:
    """One bit of one signature."""
    place = max(number for number, (kind, *_) in enumerate(entries) if kind == "sum")
    kind, facts, evidence = entries[place]
    entries[place] = (
        kind,
        facts,
        (evidence[0][:-100] + bytes([evidence[0][-100] ^ 1]) + evidence[0][-99:], *evidence[1:]),
    )


def another_plan(entries: Written) -> None:
    of_kind(entries, "round")["plan"] = of_kind(entries, "sum")["plan"] = "ab" * 32


def stranger(entries: Written) -> None:
    """Another coordinator signs a roster with the same names, and the plan."""
    place = max(number for number, (kind, *_) in enumerate(entries) if kind == "plan")
    kind, facts, evidence = entries[place]
    coordinator = Identity.generate("coordinator", "coordinator")
    people = [coordinator, Identity.generate("server", "server")]
    people += [Identity.generate(name) for name in facts["clients"]]
    signed = Roster("embedded", tuple(each.member for each in people), 10).sign(coordinator)
    roster = Roster.open(signed, coordinator.member)
    entry = entry_of(kind, facts)
    assert isinstance(entry, PlanEntry)
    plan = replace(Agreed.of(entry, evidence).plan, roster=roster.digest)
    facts |= {"roster": roster.digest.hex(), "digest": plan.digest.hex()}
    evidence = (coordinator.card(), signed, plan.sign(coordinator, roster))
    entries[place] = (kind, facts, evidence)


def place_of(entries: Written, kind: str) -> int:
    """Of the last entry of a kind that has evidence."""
    fitting = (n for n, (each, _, found) in enumerate(entries) if each == kind and found)
    return max(fitting)


def another_state(entries: Written) -> None:
    """The server writes down a state that nobody signed."""
    entries[place_of(entries, "state")][1]["digest"] = "ab" * 32


def unsigned_state(entries: Written) -> None:
    place = place_of(entries, "state")
    entries[place] = (*entries[place][:2], ())


def another_checkpoint(entries: Written) -> None:
    of_kind(entries, "state")["digest"] = "ab" * 32


def skipped(entries: Written) -> None:
    """A state that was signed is not written down."""
    del entries[next(n for n, (kind, _, found) in enumerate(entries) if kind == "state" and found)]


def unopened(entries: Written) -> None:
    """Nobody's signature over what was opened is kept."""
    place = place_of(entries, "sum")
    kind, facts, evidence = entries[place]
    rest = tuple(each for each in evidence if read_header(each).phase != Phase.APPLY)
    entries[place] = (kind, facts, rest)


def posing(entries: Written) -> None:
    """Somebody joins with another's signature."""
    entries[place_of(entries, "joined")][1]["client"] = "client-0000"


def another_noise(entries: Written) -> None:
    of_kind(entries, "plan")["colluders"] = 2


LIES: dict[str, tuple[Callable[[Written], None], str]] = {
    "a survivor is left out": (dropped, "sum.uploads"),
    "a pool below the minimum is opened": (opened, "sum.passing"),
    "a round's number comes twice": (repeated, "round.round"),
    "the minimum is lowered": (lowered, "round.fewest"),
    "another view": (another("view"), "sum.view"),
    "another plan of the round": (another_plan, "sum.evidence"),
    "another key": (another("key", "round"), "round.key"),
    "uploads are swapped": (swapped, "sum.uploads"),
    "too few agreed": (unagreed, "sum.view"),
    "a signature is damaged": (unsigned, "sum.evidence"),
    "a roster of strangers": (stranger, "sum.evidence"),
    "strangers who did not join": (stranger, "joined.evidence"),
    "a state that nobody signed": (another_state, "state.digest"),
    "a state without signatures": (unsigned_state, "state.evidence"),
    "a checkpoint of another state": (another_checkpoint, "state.digest"),
    "a state is left out": (skipped, "round.place"),
    "nobody signed what was opened": (unopened, "sum.digest"),
    "a client joins as another": (posing, "joined.client"),
    "other terms than the signed ones": (another_noise, "plan.colluders"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_a_transcript_whose_chain_is_whole_is_found(finished: Path, lie: str) -> None:
    change, field = LIES[lie]
    assert field in found_after(finished, change)


def plain(survivors: list[str], counts: list[int], **changed: object) -> list[tuple[str, str]]:
    """What is found in a transcript of one sum of exact counts, in the open."""
    in_the_open = {"protection": "plain", "fewest": 0, "roster": None, "revision": 0}
    plan = FACTS["plan"] | in_the_open | {"clients": ["a", "b", "c"]}
    begun = FACTS["round"] | {"cohort": ["a", "b", "c"], "plan": None, "threshold": 0, "minimum": 1}
    total = {"survivors": survivors, "counts": counts, "passing": [0, 1]}
    total = FACTS["sum"] | {"plan": None, "view": None, "uploads": {}} | total
    entries: Written = [("plan", plan, ()), ("round", begun | changed, ()), ("sum", total, ())]
    return [(each.field, each.problem) for each in Rounds().read(chained(entries)).findings]


def test_counts_come_to_the_survivors_and_survivors_to_the_minimum() -> None:
    assert plain(["a", "b", "c"], [2, 1]) == []
    assert plain(["a", "b", "c"], [4, 2], unit=2) == []
    for survivors, counts, field in (
        (["a", "b", "c"], [2, 2], "sum.counts"),
        (["a", "b", "c"], [3], "sum.counts"),
        (["a"], [1, 0], "sum.survivors"),
        (["b", "a"], [1, 1], "sum.survivors"),
        (["a", "d"], [1, 1], "sum.survivors"),
    ):
        assert field in {place.partition(": ")[2] for place, _ in plain(survivors, counts)}, (
            survivors
        )
    assert plain(["a", "b", "c"], [2, 1], left_out=["c"]) != []


def test_a_sum_without_a_round_or_before_a_plan_or_after_the_end_is_found(finished: Path) -> None:
    entries = as_written(lines_of(finished))
    for kind in ("round", "plan"):
        place = [number for number, (each, *_) in enumerate(entries) if each == kind][-1]
        assert Rounds().read(chained([*entries[:place], *entries[place + 1 :]])).findings
    place = [number for number, (each, *_) in enumerate(entries) if each == "sum"][-1]
    assert (
        Rounds()
        .read(chained([*entries[: place + 1], entries[place], *entries[place + 1 :]]))
        .findings
    )
    assert (
        Rounds()
        .read(chained([*entries, entries[-2], ("ledger", of_kind(entries, "ledger"), ())]))
        .findings
    )


# Privacy


def test_a_round_with_fewer_survivors_than_the_noise_counts_on_refutes_the_claim(
    tmp_path: Path,
) -> None:
    folder = run(tmp_path / "run", config(security={"protection": "plain"}))
    assert said(folder) == []
    forge(folder)
    assert said(folder) == [], "the forger makes no mistake"

    def fewer(entries: Written) -> None:
        facts = of_kind(entries, "sum")
        facts["survivors"] = facts["survivors"][:4]

    forge(folder, fewer)
    place = ("transcript.jsonl", "round 2: sum.survivors")
    (found,) = (each for each in verify(folder).findings if (each.file, each.field) == place)
    assert "4; the noise is charged for 4 honest ones and 1 colluding" in found.problem


def test_a_survivor_who_was_not_charged_is_found(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "run")
    ledger = PrivacyLedger.load(folder / "ledger.json")
    fewer = PrivacyLedger(ledger.budget)
    for release in ledger.releases[:-1]:
        fewer.record(release)
    fewer.save(folder / "ledger.json")
    forge(folder)
    found = said(folder)
    assert ("transcript.jsonl", "round 0: sum.survivors") in found
    assert ("ledger.json", "stated or releases") in found, (
        "marks of it are in metrics, checkpoints, summary and transcript"
    )


@pytest.mark.parametrize("field", ["epsilon", "clients", "claims", "releases", "delta", "assumes"])
def test_a_wrong_claim_in_the_summary_is_found(finished: Path, tmp_path: Path, field: str) -> None:
    folder = copied(finished, tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    privacy: dict[str, Any] = summary["privacy"]
    if field == "clients":
        privacy["clients"]["2"] *= 0.9
    elif field in ("claims", "assumes"):
        privacy["claims"][1] |= {"epsilon": 0.5} if field == "claims" else {"assumes": []}
    else:
        privacy[field] = type(privacy[field])(privacy[field] * 0.5)
    (folder / "summary.json").write_text(json.dumps(summary))
    forge(folder)
    assert {file for file, _ in said(folder)} == {"summary.json"}
    assert any(
        place.startswith(f"privacy.{field}") or "claims[1]" in place for _, place in said(folder)
    )


def test_a_wrong_noise_in_the_ledger_is_found(finished: Path, tmp_path: Path) -> None:
    """Its own digests are made anew, so that only what others say of it tells."""
    folder = copied(finished, tmp_path / "run")
    ledger = PrivacyLedger.load(folder / "ledger.json")
    louder = PrivacyLedger(ledger.budget)
    for release in ledger.releases:
        assert isinstance(release.event, IntegerEvent)
        louder.record(
            replace(release, event=replace(release.event, variance=4 * release.event.variance))
        )
    louder.save(
        folder / "ledger.json", claims=json.loads((folder / "ledger.json").read_text())["claims"]
    )
    forge(folder)
    assert {"ledger.json", "summary.json"} <= {file for file, _ in said(folder)}
