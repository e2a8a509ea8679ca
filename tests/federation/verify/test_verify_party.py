"""`verify` on one party's folder: whose it is, how far it came, and what its ledger leaves out."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from federation.parties.kills import Federation, Kind
from federation.parties.toy_federation import Toy, plan_of

from secure_fl.federation.parties import party_folder
from secure_fl.federation.place import Place
from secure_fl.federation.program import SumForm
from secure_fl.federation.verify.check import verify
from secure_fl.privacy.ledger import PrivacyLedger, Release

OWNER, LAST = ("owner", "content"), ("transcript.jsonl", "last line")
SERVER, CLIENT = "server", "client-0001"


@dataclass(frozen=True)
class Trained(Toy):
    """A toy whose step is one that is charged for."""

    def form(self, place: Place) -> SumForm:
        return replace(super().form(place), name="pretrain")


def made(folder: Path) -> Federation:
    """A federation that has ended; of its clients each has a ledger and a private plan."""
    one = Federation(folder, Kind("masked", "clients", Trained(4, 2)))
    settings = plan_of(one.roster, one.program, "masked", "clients").configuration
    more = {"privacy": {"unit": "example"}, "objective": {"form": "normalized"}}
    private = {name: {**settings[name], **changes} for name, changes in more.items()}
    one.plan = replace(one.plan, configuration={**settings, **private})
    one.signed = one.plan.sign(one.people["coordinator"], one.roster)
    one.run()
    one.close()
    for name in one.names:
        kept(folder / name, lambda releases: releases)
    return one


def kept(folder: Path, change: Callable[[list[Release]], Iterable[Release]]) -> None:
    """Put other releases into a ledger, which is sound in itself then."""
    found = PrivacyLedger.load(folder / "ledger.json")
    ledger = PrivacyLedger(found.budget)
    for release in change([replace(each, phase="pretrain") for each in found.releases]):
        ledger.record(release)
    ledger.save(folder / "ledger.json")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("ran")).folder


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run, of other people."""
    return made(tmp_path_factory.mktemp("others")).folder


@pytest.fixture
def folder(tmp_path: Path, ran: Path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "ran"))


def said(folder: Path) -> set[tuple[str, str]]:
    """File and field of every finding."""
    return {(each.file, each.field) for each in verify(folder).findings}


@pytest.mark.parametrize("name", [SERVER, CLIENT])
def test_an_honest_folder_fits_and_what_is_sealed_is_named(folder: Path, name: str) -> None:
    found = verify(folder / name)
    assert found.findings == ()
    assert dict(found.checked)["owner"].startswith(f"{name.partition('-')[0]} {name}, fingerprint")
    sealed = {"*.sealed", "rounds-", "box/results.made", "results.made", "sums-", ".lock*"}
    assert found.uncovered.keys() - sealed <= {"transcript.jsonl"}


@pytest.mark.parametrize("name", [SERVER, CLIENT])
def test_a_flipped_byte_of_a_file_in_the_open_is_found(folder: Path, name: str) -> None:
    coins, missed = random.Random(5), []
    files = {SERVER: ["owner", "progress", "state"], CLIENT: ["owner", "plan", "head"]}[name]
    for file in [*files, "transcript.jsonl"]:
        path = folder / name / file
        data = path.read_bytes()
        for place in (0, len(data) - 1, *(coins.randrange(len(data)) for _ in range(8))):
            changed = data[place] ^ (1 << coins.randrange(8))
            path.write_bytes(data[:place] + bytes([changed]) + data[place + 1 :])
            missed += [(file, place)] * (file not in {each for each, _ in said(folder / name)})
        path.write_bytes(data)
    assert missed == []


@pytest.mark.parametrize("name", [SERVER, CLIENT])
@pytest.mark.parametrize("lines", [1, 3, 99])
def test_a_transcript_that_ends_too_early_is_found(folder: Path, name: str, lines: int) -> None:
    path = folder / name / "transcript.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-lines]))
    assert LAST in said(folder / name)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        *((SERVER, file) for file in ("owner", "transcript.jsonl", "progress")),
        *((CLIENT, file) for file in ("owner", "transcript.jsonl", "plan", "head")),
    ],
)
def test_a_file_of_another_run_is_found(folder: Path, others: Path, name: str, file: str) -> None:
    shutil.copy(others / name / file, folder / name / file)
    assert said(folder / name) != set()


def shifted(releases: list[Release]) -> list[Release]:
    """One of a round that nobody called."""
    return [*releases[:-1], replace(releases[-1], round=7)]


def anothers(releases: list[Release]) -> list[Release]:
    return [replace(each, subjects=(2,)) for each in releases]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda releases: releases[:-1], ("ledger.json", "releases")),
        (lambda _: [], ("ledger.json", "releases")),
        (shifted, LAST),
        (anothers, ("ledger.json", "subjects")),
    ],
)
def test_a_ledger_that_is_sound_in_itself_and_says_something_else(
    folder: Path, change: Callable[[list[Release]], list[Release]], where: tuple[str, str]
) -> None:
    kept(folder / CLIENT, change)
    assert where in said(folder / CLIENT)


def test_a_ledger_that_is_gone_is_missed(folder: Path) -> None:
    (folder / CLIENT / "ledger.json").unlink()
    assert said(folder / CLIENT) == {("ledger.json", "file")}


def test_whoever_writes_an_owner_anew_is_not_the_one_of_the_transcript(folder: Path) -> None:
    """The bytes in front of a file in the open are anybody's to compute."""
    path = folder / CLIENT / "owner"
    words = path.read_bytes()[party_folder.CHECK :].decode()
    for old, new in (("of toy", "of lab"), (words[-64:], "ab" * 32)):
        text = words.replace(old, new)
        path.write_bytes(party_folder.checked("", "owner", text.encode()) + text.encode())
        assert {field for file, field in said(folder / CLIENT) if file == "transcript.jsonl"} & {
            "plan.federation",
            "joined.fingerprint",
        }
