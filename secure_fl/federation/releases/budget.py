"""The gate before every round: what clients are about to release is recorded, saved and held
against the budget before they are asked.

Recording comes first, so a crash after a client has answered leaves its release in the ledger. A
resumed round answers the same request with the same noise: it is the same release, found in the
ledger under the same key, and is charged once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from torch import Tensor

from secure_fl.config import PrivacyConfig
from secure_fl.errors import PrivacyError
from secure_fl.federation.releases.box import charged_again
from secure_fl.federation.releases.run_state import LEDGER, RunState
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.metrics import Metrics, Spent
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.chain import Mark
from secure_fl.privacy.claims import PrivacyClaim
from secure_fl.privacy.earlier import taken_over
from secure_fl.privacy.ledger import Budget, Charges, PrivacyLedger, Release
from secure_fl.records import document


class BudgetGate:
    """The ledger of a run that releases anything with noise, its budget, and the file that survives
    a crash. Without one it lets everything pass.

    Without privacy of the run it holds what the run's sketches cost, and nothing where they are
    not noised.

    **Guarantee.** A release is in the ledger's file before anybody is asked for it. A ledger that
    lost releases which the run's records or the user's state directory count is refused: nothing
    more is released.

    **Assumes.** Ledger, records and state directory are not all put back to what they were before.

    **Not covered.** Other runs over the same examples, unless this one loads their encoder.

    Attributes:
        covers_run: whether the budget is the whole run's, and not its sketches' alone.
    """

    def __init__(
        self,
        config: PrivacyConfig,
        path: Path | None,
        state: RunState | None = None,
        *,
        sketches: bool = False,
        resumed: bool = False,
    ) -> None:
        """`path`: of the ledger's file, None where nothing is written. `state`: where its mark is
        kept apart from it. A `resumed` run has one.

        `sketches`: whether the run releases noised ones.

        Raises:
            PrivacyError: the run is resumed and its ledger is gone, damaged, or has lost releases.
            FileError: it cannot be written.
        """
        self._path, self._state = path, state
        self.budget: Budget | None = None
        self.ledger: PrivacyLedger | None = None
        self.covers_run = config.unit != "none"
        if self.covers_run or sketches:
            unit = PrivacyUnit(config.unit) if self.covers_run else PrivacyUnit.EXAMPLE
            epsilon = config.epsilon if self.covers_run else config.sketch_epsilon
            self.budget = Budget(epsilon, config.delta, unit, Adjacency(config.adjacency))
            self.ledger = PrivacyLedger(self.budget)
            if resumed and path is not None:
                self.ledger = PrivacyLedger.load(path)
            if not resumed:
                self._save()
            kept = None if state is None else state.mark(LEDGER)
            self.follows([] if kept is None else [("the user's state directory", kept)])

    def follows(self, marks: Iterable[tuple[str, Mark]]) -> None:
        """Check that the ledger begins with everything that it held when these marks were taken;
        each with where it was found. Raises PrivacyError: it was deleted, shortened, reordered, or
        put back to an earlier one.
        """
        for problem in [] if self.ledger is None else self.ledger.lost(marks):
            remedy = (
                "put back the ledger that the run wrote last, or start a new run: what was "
                "released counts there too"
            )
            raise PrivacyError(problem, "ledger", self._path and self._path.name, remedy)

    def admit(
        self, releases: Sequence[Release], answers: Callable[[str], int] = lambda _: 1
    ) -> None:
        """Record a round's releases, or refuse the round.

        Args:
            answers: how many different answers there are to the question of a key once it has been
                answered; each is charged.

        Raises:
            PrivacyError: somebody's budget would be passed; nothing is recorded, and nobody has
                been asked.
            FileError: the ledger cannot be written; nobody has been asked.
        """
        if self.ledger is None or not releases:
            return
        charged = [each for release in releases for each in _charges(release, answers(release.key))]
        self.ledger.would_exceed(charged, self.budget)
        for release in charged:
            self.ledger.record(release)
        self._save()

    def load_encoder(self, folder: RunFolder, clients: int) -> None:
        """Take over what an earlier run has released: its encoder is the start of this one.

        Examples may be with other clients now. Each was with one client then, so every client is
        charged the maximum over the earlier run's clients, each composed with what this run
        releases; see `privacy.earlier`. An encoder from an unlabelled set at a server
        (`centralized`) has seen none of the clients' examples and costs nothing.

        Raises:
            PrivacyError: it was trained on clients' data without privacy or for another unit, its
                ledger is not the one that the run's records count, or the two runs together pass
                the budget.
            RunFolderError: the earlier run has not finished.
        """
        if self.ledger is None or self.budget is None or not self.covers_run:
            return
        config = folder.read_config()
        remedy = "load an encoder that was trained with privacy, or on a set of the server's own"
        folder.read_summary()
        private = config.privacy.unit != "none"
        earlier = PrivacyLedger.load(folder.ledger) if private else PrivacyLedger()
        if config.pretrain.mode == "centralized" and not earlier.releases:
            return
        problems = earlier.lost(folder.marks())
        if not private:
            problems = ["was trained without privacy"]
        elif not problems and not earlier.subjects(self.budget.unit):
            problems = [f"protects another unit than one {self.budget.unit}"]
        for problem in problems:
            raise PrivacyError(problem, "pretrain.load_from", str(folder.path), remedy)
        self.admit(taken_over(earlier, range(clients)))

    def state(self, claims: Sequence[PrivacyClaim]) -> None:
        """Write the claims into the ledger's file."""
        if self.ledger is not None and self._path is not None:
            self.ledger.save(self._path, claims=document(claims))

    @property
    def mark(self) -> Mark | None:
        """How far the ledger has come; None without one. In every checkpoint."""
        return None if self.ledger is None else self.ledger.mark

    def charged(self) -> list[str]:
        """Keys of everything recorded."""
        return [] if self.ledger is None else [release.key for release in self.ledger.releases]

    def already(self, client: int) -> tuple[Charges, ...]:
        """What an earlier run may have released of a client, a history each; one empty history
        where there was none.
        """
        if self.ledger is None or self.budget is None:
            return ((),)
        return self.ledger.brought(self.budget.unit, client, self.budget.adjacency)

    @property
    def earlier(self) -> list[Release]:
        """Releases that came along with an earlier run's encoder."""
        releases = () if self.ledger is None else self.ledger.releases
        return [release for release in releases if release.history is not None]

    def spent(self) -> Metrics:
        """What a round's record says of privacy: the largest ε of any subject so far, by the quick
        bound, which is never too low, and the mark.

        No ε where only sketches are noised: beside a round's loss it would read as if the round
        were private.
        """
        if self.ledger is None or self.budget is None:
            return Metrics()
        if not self.covers_run:
            return Metrics(ledger=self.ledger.mark)
        epsilon = self.ledger.maximum(self.budget, fine=False)
        spent = Spent(epsilon, self.budget.delta, str(self.budget.unit))
        return Metrics(privacy=spent, ledger=self.ledger.mark)

    def _save(self) -> None:
        """The file first, then the mark that says it was written."""
        if self.ledger is not None and self._path is not None:
            self.ledger.save(self._path)
            if self._state is not None:
                self._state.keep(LEDGER, self.ledger.mark)


def _charges(release: Release, answers: int) -> Iterable[Release]:
    """A release, once for each different answer to it."""
    yield release
    for number in range(1, answers):
        yield replace(release, key=charged_again(release.key, number))


def digest_of(message: object) -> str:
    """SHA-256 in hex over a message's tensors and values: part of the noise's domain and of the
    release's key.

    Whoever asks the same round again with another model gets other noise and is charged again;
    noise never answers two questions.
    """
    digest = hashlib.sha256()
    for part in _flat(message):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _flat(value: object) -> Iterable[bytes]:
    if isinstance(value, Tensor):
        yield repr((value.dtype, tuple(value.shape))).encode()
        yield value.detach().cpu().contiguous().numpy().tobytes()
    elif isinstance(value, dict | list | tuple):
        yield type(value).__name__.encode()
        for item in value.items() if isinstance(value, dict) else value:
            yield from _flat(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        for field in fields(value):
            yield from _flat(getattr(value, field.name))
    else:
        yield repr(value).encode()
