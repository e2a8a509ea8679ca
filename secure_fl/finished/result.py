"""`Result`: what came out of a run, to be used and to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor, nn

from secure_fl.errors import ModelError
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.metrics import RoundRecord
from secure_fl.federation.run_folder.summary import Summary
from secure_fl.files import is_file, read_json
from secure_fl.finished.assign import Assignment, assign
from secure_fl.finished.inference import Examples, Models
from secure_fl.paths import path_of
from secure_fl.pools.pool_set import PoolModel

_REMEDY = "restore the file that the run wrote, or delete it: it is not needed"


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        models: encoder, pools, and how their examples are prepared.
        choices: client -> pool, as this process read them off the clients; empty where a finished
            run's record does not tell.
        summary: the content of `summary.json`, and beside it what the manifest keeps out of
            that file.
        records: every round, likewise.
        folder: where it was written, or None.
        names: of the clients, by number; () where the record does not tell.
    """

    models: Models
    choices: dict[int, int]
    summary: Summary
    records: list[RoundRecord] = field(repr=False)
    folder: Path | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path | str, encoder: nn.Module | None = None) -> Result:
        """A finished run, from its folder. What the record leaves out is missing here too.

        Args:
            folder: the run's.
            encoder: a module of the same architecture, needed where the run was given one of the
                caller's own.

        Raises:
            RunFolderError: no finished run there, or a file of it is damaged.
            ModelError: the run used a module of the caller's own and none is given, or it does
                not fit.
        """
        path = path_of(folder, "run folder")
        opened = RunFolder.open(path)
        summary = opened.read_summary()
        models = Models.load(path, encoder)
        choices = {int(client): pool for client, pool in models.card.choices.items()}
        return cls(models, choices, summary, opened.read_metrics(), path, _names(opened, models))

    @property
    def encoder(self) -> nn.Module:
        """The pre-trained encoder (without pre-training: the first one), in eval mode."""
        return self.models.encoder

    @property
    def pools(self) -> list[PoolModel]:
        """One model a pool, in eval mode; empty without a cluster phase."""
        return self.models.pools

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; () where numbers are all there is."""
        return self.models.card.class_names

    @property
    def client_names(self) -> tuple[str, ...]:
        """Names of the clients in number order, or their numbers; () where not recorded."""
        return self.names

    def embed(self, x: Examples, client: int | str | None = None) -> Tensor:
        """Features `[N, F]` of examples `[N, *shape]`, prepared here as the run's own were.

        Args:
            x: examples, or anything that `Dataset.of` takes.
            client: whose they are, by number or name; it matters where each client scales columns
                by its own statistics.

        Raises:
            DataError: the examples are not of the run's shape.
            ModelError: no such client.
        """
        return self.models.embed(
            self.models.prepare(x, client=None if client is None else self._number(client))
        )

    def predict(
        self, x: Examples, client: int | str | None = None, *, pool: int | None = None
    ) -> Tensor:
        """The most probable class of each example, int64 `[N]`; see `predict_proba`."""
        return self.predict_proba(x, client, pool=pool).argmax(1)

    def predict_proba(
        self, x: Examples, client: int | str | None = None, *, pool: int | None = None
    ) -> Tensor:
        """Probability of each class, `[N, classes]`, by one pool's model.

        Args:
            x: examples `[N, *shape]`, prepared here as the run's own were.
            client: whose pool to use, by number or name. Without it the examples are taken for a
                newcomer's, all of one client: `assign` chooses.
            pool: the pool to use, where it is known otherwise.

        Raises:
            DataError: the examples are not of the run's shape.
            ModelError: no such client or pool, the record does not tell the client's pool, or the
                pools know no classes.
        """
        chosen = self._pool(x, client, pool)
        return self.models.probabilities(
            self.models.prepare(x, client=None if client is None else self._number(client)), chosen
        )

    def assign(self, x: Examples, y: Any = None) -> Assignment:
        """The right pool for a client not in the run; nothing is trained or sent. See `assign`."""
        return assign(self.models, x, y)

    def __repr__(self) -> str:
        clients = self.summary.clients
        where = "" if self.folder is None else f", folder={str(self.folder)!r}"
        kind = type(self.encoder).__name__
        return (
            f"Result({self.summary.name!r}, encoder={kind}, pools={len(self.pools)}, "
            f"clients={clients}, rounds={len(self.records)}{where})"
        )

    def _pool(self, x: Examples, client: int | str | None, pool: int | None) -> int:
        if client is not None and pool is not None:
            problem = "client and pool are both given"
            raise ModelError(problem, field="pool", value=pool, remedy="give one of them")
        if client is not None:
            return self._pool_of(client)
        if not self.pools:
            problem = "the run has no pools"
            remedy = "use embed(x), or run it with pools.enabled = true"
            raise ModelError(problem, field="pools.enabled", value=False, remedy=remedy)
        if pool is None:
            return 0 if len(self.pools) == 1 else self.assign(x).pool
        if not _is_number(pool) or not 0 <= pool < len(self.pools):
            remedy = f"use a number from 0 to {len(self.pools) - 1}"
            raise ModelError("no such pool", field="pool", value=_shown(pool), remedy=remedy)
        return pool

    def _number(self, client: int | str) -> int:
        if isinstance(client, str) and client in self.names:
            client = self.names.index(client)
        if not _is_number(client) or not 0 <= client < self.summary.clients:
            known = f", or a name: {_few(self.names)}" if self.names else ""
            remedy = f"use a number below {self.summary.clients}{known}"
            raise ModelError("no such client", field="client", value=_shown(client), remedy=remedy)
        return int(client)

    def _pool_of(self, client: int | str) -> int:
        number = self._number(client)
        if number not in self.choices:
            problem = "the run's record does not tell which pool a client uses"
            remedy = "pass pool=, which the client knows, or leave client out: examples then choose"
            raise ModelError(problem, field="client", value=client, remedy=remedy)
        return self.choices[number]


def load_result(folder: Path | str, encoder: nn.Module | None = None) -> Result:
    """The result of a finished run, from its folder; see `Result.load`."""
    return Result.load(folder, encoder)


def _names(folder: RunFolder, models: Models) -> tuple[str, ...]:
    """Names of the clients in order, where the record has them."""
    if is_file(folder.partition):
        clients = read_json(folder.partition, dict[str, Any], _REMEDY).get("clients", [])
        return tuple(
            str((client.get("name") if isinstance(client, dict) else "") or number)
            for number, client in enumerate(clients)
        )
    return tuple(models.card.client_names)


def _is_number(value: object) -> TypeGuard[int]:
    """Whether it is an integer, of Python or numpy."""
    return not isinstance(value, bool | str) and hasattr(value, "__index__")


def _shown(value: object) -> object:
    """A name or number as it is, of anything else its type."""
    return value if isinstance(value, str | int) else type(value).__name__


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
