"""Ledgers that were shortened, edited or put back between a stop and a resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.short_run import (
    EndAtOnce,
    Watch,
    elsewhere,
    made_up_examples,
    run,
    short,
)
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.errors import SecureFLError
from secure_fl.federation.client import Client
from secure_fl.federation.releases.run_state import state_directory
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.state import State
from secure_fl.federation.steps.step import Answer
from secure_fl.files import held
from secure_fl.privacy.ledger import Budget, PrivacyLedger, Release

_ROUNDS = 3
Change = Callable[[Path, Path], None]
"""Of a stopped run's folder; the other one is a copy of it from a round before."""


@dataclass(frozen=True)
class LedgerChain:
    """The audited ledger against the run's records, and a short run whose ledger is tampered with.

    **Guarantee**: `broken` where a run goes on from a ledger that lacks a release, counts one for
    less, or was put back, or where two processes go on with one run; where a client answers before
    its release is in the file; or where the audited ledger
    does not begin with what its run's records count.

    **Not covered**: ledger, records and state directory that were all put back together.
    """

    name: str = "ledger-chain"
    tried: str = "whether a run goes on from a ledger that was shortened, edited or put back"

    def refused(self, subject: Subject) -> str:
        config = subject.config
        charged = config.privacy.unit != "none" or config.noises_sketches
        return "" if charged else "the run has no ledger: nothing is released with noise"

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 5.0

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        outcome = partial(Outcome, self.name, self.tried, "whoever writes to the run's folder", "")
        lost = _lost(subject)
        config = short(_charged(subject.config), rounds=_ROUNDS, pools=False)
        data = made_up_examples(config.partition.clients, seed)
        with elsewhere() as folder:
            words = _resumed_with(config, data, folder, progress)
        goes_on = words.pop("nothing changed")
        if goes_on:
            return outcome("not tried", f"an untouched run does not go on either: {goes_on}")
        taken = [name for name, word in words.items() if not word]
        return outcome(
            "broken" if taken or lost else "held",
            _said(words, taken, lost),
            figures=tuple(
                Figure(f"{name}: {word or 'gone on from'}", float(not word), limit=0.0)
                for name, word in words.items()
            ),
        )


def _charged(config: FederationConfig) -> FederationConfig:
    """The run's settings, with releases of examples where only its sketches are noised."""
    if config.privacy.unit != "none":
        return config
    privacy = config.privacy.model_copy(update={"unit": "example"})
    return config.model_copy(update={"privacy": privacy})


def _lost(subject: Subject) -> list[str]:
    """What the audited ledger lacks of what its run's records count."""
    if subject.folder is None or subject.ledger is None:
        return []
    try:
        ledger = PrivacyLedger.load(subject.ledger)
        return ledger.lost(RunFolder.open(subject.folder).marks())
    except SecureFLError as error:
        return [error.problem]


def _resumed_with(
    config: FederationConfig, data: Dataset, folder: Path, progress: Callable[[float], None]
) -> dict[str, str]:
    """By tampering: the word with which a resume is refused, empty where it goes on."""
    stopped, older, state = folder / "run", folder / "older", state_directory()

    def keep() -> None:
        if watch.rounds == _ROUNDS - 2 and not older.exists():
            shutil.copytree(stopped, older, ignore=shutil.ignore_patterns(".lock*"))

    watch = Watch(stop=_ROUNDS - 1, look=keep)
    with _ahead(stopped / "ledger.json") as late:
        run(config, data, stopped, callbacks=[watch])
    kept, words = folder / "kept", dict[str, str]()
    words["answers that are not in its file"] = "" if late else "charged-before"
    shutil.copytree(stopped, kept, ignore=shutil.ignore_patterns(".lock*"))
    shutil.copytree(state, folder / "kept-state")
    resume = partial(run, config, data, stopped, resume=True, callbacks=[EndAtOnce()])
    for done, (name, change) in enumerate(_CHANGES.items()):
        for place, source in ((stopped, kept), (state, folder / "kept-state")):
            shutil.rmtree(place)
            shutil.copytree(source, place)
        change(stopped, older)
        words[name] = _word(resume)
        progress((done + 1) / (len(_CHANGES) + 2))
    shutil.rmtree(stopped)
    shutil.copytree(kept, stopped)
    with held(stopped):
        words["two processes at once"] = _word(resume)
    shutil.rmtree(state)
    shutil.copytree(folder / "kept-state", state)
    words["nothing changed"] = _word(resume)
    return words


@contextmanager
def _ahead(ledger: Path) -> Iterator[list[str]]:
    """Keys of what clients answered before it was in the ledger's file."""
    honest, late = Client.answered, list[str]()

    def answered(self: Client, state: State, position: int) -> Answer:
        saved = {each.key for each in PrivacyLedger.load(ledger).releases}
        late.extend(each.key for each in self.releases(state, position) if each.key not in saved)
        return honest(self, state, position)

    with patch.object(Client, "answered", answered):
        yield late


def _word(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except SecureFLError as error:
        return error.code
    return ""


# What is done to a ledger


def _again(folder: Path, releases: Callable[[Sequence[Release]], Sequence[Release]]) -> None:
    """A well-made ledger of other releases."""
    path = folder / "ledger.json"
    old = PrivacyLedger.load(path)
    made = PrivacyLedger(old.budget)
    for release in releases(old.releases):
        made.record(release)
    made.save(path)


def _cut(folder: Path, _: Path) -> None:
    _again(folder, lambda releases: releases[:-1])


def _moved(folder: Path, _: Path) -> None:
    _again(folder, lambda releases: [*releases[1:], releases[0]])


def _renamed(folder: Path, _: Path) -> None:
    _again(folder, lambda releases: [replace(releases[0], phase="other"), *releases[1:]])


def _begun_anew(folder: Path, _: Path) -> None:
    _again(folder, lambda _: [])


def _line_cut(folder: Path, _: Path) -> None:
    path = folder / "ledger.json"
    content = json.loads(path.read_text())
    content["releases"] = content["releases"][:-1]
    path.write_text(json.dumps(content))


def _epsilon_edited(folder: Path, _: Path) -> None:
    path = folder / "ledger.json"
    content = json.loads(path.read_text())
    for row in content["stated"]:
        row["epsilon"] = 0.1
    path.write_text(json.dumps(content))


def _budget_raised(folder: Path, _: Path) -> None:
    path = folder / "ledger.json"
    old = PrivacyLedger.load(path)
    assert old.budget is not None
    budget = old.budget
    raised = Budget(2 * budget.epsilon, budget.delta, budget.unit, budget.adjacency)
    made = PrivacyLedger(raised)
    for release in old.releases:
        made.record(release)
    made.save(path)


def _put_back(folder: Path, older: Path) -> None:
    shutil.copyfile(older / "ledger.json", folder / "ledger.json")


def _all_put_back(folder: Path, older: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(older, folder)


def _gone(folder: Path, _: Path) -> None:
    (folder / "ledger.json").unlink()


_CHANGES: dict[str, Change] = {
    "the last release cut": _cut,
    "a line cut": _line_cut,
    "releases in another order": _moved,
    "a release of another name": _renamed,
    "begun anew": _begun_anew,
    "epsilon edited": _epsilon_edited,
    "budget raised": _budget_raised,
    "an older ledger put back": _put_back,
    "the whole folder put back": _all_put_back,
    "deleted": _gone,
}


def _said(words: dict[str, str], taken: list[str], lost: list[str]) -> str:
    if lost:
        return f"the audited ledger {'; '.join(lost)}"
    if taken:
        return f"a run goes on from a ledger with: {', '.join(taken)}"
    return f"{len(words)} ways to tamper with a stopped run's ledger: none is gone on from"


LEDGER_CHAIN = LedgerChain()
