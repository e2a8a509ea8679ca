"""A record whose chain is whole, and which says less than the signed plan, or fewer signatures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from federation.verify.records import (
    Written,
    found_after,
    of_kind,
    run,
)
from federation.verify.test_verify import place_of

from secure_fl.crypto.envelope import Phase, read_header


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("finished") / "run")


def unjoined(entries: Written) -> None:
    """Somebody is asked who never said that it takes part."""
    entries.remove([each for each in entries if each[0] == "joined"][-1])


def small_pool(entries: Written) -> None:
    of_kind(entries, "round")["minimum"] = 1


def few_sign(entries: Written) -> None:
    of_kind(entries, "round")["threshold"] = 2


def thin(entries: Written) -> None:
    """One who lies with the server signs a state, and nobody else."""
    for number, (kind, facts, evidence) in enumerate(entries):
        if kind in ("sum", "state"):
            claims = [each for each in evidence if read_header(each).phase == Phase.APPLY]
            kept = tuple(each for each in evidence if each not in claims[1:])
            entries[number] = (kind, facts, kept)


def thin_at_last(entries: Written) -> None:
    place = place_of(entries, "state")
    kind, facts, evidence = entries[place]
    entries[place] = (kind, facts, evidence[:1])


def silent_survivor(entries: Written) -> None:
    facts = of_kind(entries, "sum")
    facts["missed"] = {facts["survivors"][0]: "upload"}


def named_maker(entries: Written) -> None:
    """Another than who may makes a key, as the record has it."""
    first = next(n for n, (kind, *_) in enumerate(entries) if kind == "round")
    keys = {"fingerprint": "ab" * 32, "maker": "server", "first": 0, "last": 9}
    entries.insert(first, ("keys", keys, ()))


LIES: dict[str, tuple[Callable[[Written], None], str]] = {
    "a client that did not join is asked": (unjoined, "round.cohort"),
    "a pool may be smaller than was signed": (small_pool, "round.minimum"),
    "fewer agree than was signed": (few_sign, "round.threshold"),
    "a state that one client signed": (thin, "sum.round"),
    "a last state that one client signed": (thin_at_last, "end.reason"),
    "a survivor that was silent": (silent_survivor, "sum.missed"),
    "a key of who makes none": (named_maker, "keys.maker"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_says_less_than_was_signed_is_found(finished: Path, lie: str) -> None:
    change, field = LIES[lie]
    assert field in found_after(finished, change)
