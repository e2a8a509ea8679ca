"""Columns of tables on one scale: what vectors `[N, F]` are divided by, and whose statistics
these are.

`data.scale` says it:

- `per_client` (what `auto` means unless means are given): each client subtracts the means of its
  own training examples and divides by their deviations. Nothing leaves it, and validation and test
  examples are measured with the same numbers without ever entering them. Two clients who differ by
  a column's level or spread alone look alike afterwards; where that difference matters, give means
  and deviations.
- `given`: everybody uses `data.column_means` and `data.column_deviations`, public numbers:
  differences between clients stay.
- `per_example`: each example by its own mean and deviation over its columns.
- `none`: as they are.

**Differential privacy.** `per_client` makes every example of a client depend on all its others:
with example-level privacy one example would move all gradients of its client, so there it is
refused, and `auto` wants the numbers given. At client level a client is hidden as a whole, and its
own statistics are part of it.

**Sketches** are released with a claim about single examples in every protected run, also where
nothing else is private. So they never read what `per_client` has made: of a client standardised
with its own statistics the mean is zero anyhow. They read the values as they were, each by itself
on a logarithmic scale that is the same for everybody (`squashed`): positive columns of any unit
then differ by their relative spread. A column far from zero that hardly varies, such as a year,
says little in it; given means and deviations say more, and with these the sketch reads what the
models read. A sketch of embeddings, whose encoder has to be shown standardised values, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.errors import ConfigError, DataError

Kind = Literal["none", "per_example", "per_client", "given"]

FARTHEST = 10.0
"""Deviations at which values are held under a client's statistics, which may rest on few."""
_NO_SPREAD = 1e-9
"""A deviation over the mean below which a column is constant: float32 values differ by 6e-8."""
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each column of one client's training examples."""
_LEAST_DEVIATION = 1e-6
"""The smallest deviation of an example over its columns that it is divided by."""


def _no_columns(scale: str, kind: str) -> DataError:
    problem = "only tables have columns to scale"
    remedy = 'set data.scale = "auto" and leave data.column_means and data.column_deviations out'
    return DataError(problem, field="data.scale", value=f"{scale} for {kind} data", remedy=remedy)


def _check_private(config: FederationConfig) -> None:
    """Refuse a client's own statistics where noise hides one example at a time."""
    if config.privacy.unit == "example":
        problem = (
            "a client's own statistics tie each of its examples to all others, and "
            "example-level privacy hides one at a time"
        )
        remedy = (
            "set data.column_means and data.column_deviations to public numbers, one a column, "
            "that were not computed from the clients' examples; or "
            'data.scale = "none" where the columns have one scale already'
        )
        raise DataError(problem, field="data.column_means", value=None, remedy=remedy)
    if config.noises_sketches and config.pools.sketch_of == "encoder":
        problem = (
            "an embedding of what a client's own statistics have made depends on all its "
            "examples, and a sketch's noise hides one"
        )
        remedy = 'set pools.sketch_of = "examples", or data.column_means and data.column_deviations'
        raise ConfigError(problem, field="pools.sketch_of", value="encoder", remedy=remedy)


def check_columns(config: FederationConfig, shape: Sequence[int]) -> None:
    """Refuse given means and deviations that are not one a column of the examples.

    Args:
        shape: of one example.

    Raises:
        DataError: they are more or fewer.
    """
    means = config.data.column_means
    if means is None or tuple(shape) == (len(means),):
        return
    problem = f"{len(means)} means and deviations for examples of shape {tuple(shape)}"
    remedy = (
        "give one number a column, in the order of the columns; a text column is one column for "
        "each of its values (mean 0 and deviation 1 leave those as they are)"
    )
    raise DataError(problem, field="data.column_means", value=f"{len(means)} means", remedy=remedy)


@dataclass(frozen=True)
class Scaling:
    """How vectors are scaled, the same at every client; what is no vector is left as it is.

    Attributes:
        kind: whose statistics, as above.
        means, deviations: one number a column, where they are given.
    """

    kind: Kind = "none"
    means: tuple[float, ...] | None = None
    deviations: tuple[float, ...] | None = None

    @classmethod
    def of(cls, config: FederationConfig, example: Dataset) -> Self:
        """What a configuration means for data that look like `example`.

        Raises:
            DataError: example-level privacy without given numbers; not as many as columns; columns
                of what is no table.
            ConfigError: sketches of embeddings of what a client's own statistics have made.
        """
        data = config.data
        if example.kind != "vector":
            if data.scale in ("per_client", "given") or data.column_means is not None:
                raise _no_columns(data.scale, example.kind)
            return cls()
        unasked: Kind = "per_client" if data.column_means is None else "given"
        kind = unasked if data.scale == "auto" else data.scale
        if kind == "per_client":
            _check_private(config)
        if kind == "per_example" and example.shape == (1,):
            remedy = 'set data.scale = "auto" or "none"'
            problem = "of a single column nothing would be left"
            raise DataError(problem, field="data.scale", value=kind, remedy=remedy)
        made = cls(kind, data.column_means, data.column_deviations)
        if kind == "given":
            check_columns(config, example.shape)
        return made

    def client(self, client: ClientData) -> ClientData:
        """A client's examples scaled, its sketch's examples beside them where these are others.

        Raises:
            DataError: given numbers do not fit the values.
        """
        if self.kind == "none" or client.train.kind != "vector":
            return client
        train, validation, test = (
            self._applied(part, client.train)
            for part in (client.train, client.validation, client.test)
        )
        sketched = (
            replace(client.train, x=squashed(client.train.x)) if self.kind == "per_client" else None
        )
        return replace(client, train=train, validation=validation, test=test, sketched=sketched)

    def statistics(self, dealt: Sequence[ClientData]) -> dict[str, Statistics]:
        """Each client's, by its number; nobody's unless columns are scaled by a client's own."""
        if self.kind != "per_client":
            return {}
        found = {str(client.id): column_statistics(client.train.x) for client in dealt}
        return {
            number: (tuple(means.tolist()), tuple(deviations.tolist()))
            for number, (means, deviations) in found.items()
        }

    def alone(self, data: Dataset, own: Statistics | None = None) -> Dataset:
        """A set by itself: a newcomer's, or the one that a server pre-trains on; under `per_client`
        its own statistics are used.

        Args:
            own: under `per_client`, the statistics of the client whose the examples are, where
                these are known.

        Raises:
            DataError: `per_client` and a single example, which has no spread; given numbers do not
                fit the values.
        """
        if self.kind == "per_client" and own is not None:
            means, deviations = (torch.tensor(numbers, dtype=torch.float64) for numbers in own)
            return replace(data, x=_held(data.x, means, deviations).float())
        if self.kind == "per_client" and len(data) < 2:
            remedy = "bring at least two examples, better thirty"
            raise DataError.unshown(
                "one example has no statistics to scale by", f"{data.name}.x", remedy
            )
        return self._applied(data, data)

    def sketched(self, raw: Dataset) -> Tensor:
        """What a sketch of a newcomer's `raw` examples is made of, `[N, *shape]`."""
        return squashed(raw.x) if self.kind == "per_client" else self.alone(raw).x

    def _applied(self, data: Dataset, train: Dataset) -> Dataset:
        """`data` by the statistics that the kind asks for, those of `train` at most."""
        if self.kind == "none" or data.kind != "vector":
            return data
        x = data.x.double()
        if self.kind == "per_example":
            centred = x - x.mean(1, keepdim=True)
            scaled = centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(
                _LEAST_DEVIATION
            )
        elif self.kind == "per_client":
            scaled = _held(x, *column_statistics(train.x))
        else:
            scaled = (x - torch.tensor(self.means, dtype=torch.float64)) / torch.tensor(
                self.deviations, dtype=torch.float64
            )
        made = replace(data, x=scaled.float())
        if not bool(torch.isfinite(made.x).all()):
            problem, field = "values scaled beyond float32", "data.column_deviations"
            remedy = "check data.column_means and data.column_deviations: they do not fit"
            raise DataError.unshown(problem, field, remedy)
        return made


def _held(x: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    return ((x.double() - means) / deviations).clamp(-FARTHEST, FARTHEST)


def column_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column of `[N, F]`, float64 `[F]`; 1 for a constant one."""
    x = x.double()
    means, deviations = x.mean(0), x.std(0, correction=0)
    return means, torch.where(
        deviations > _NO_SPREAD * means.abs(), deviations, torch.ones_like(deviations)
    )


def squashed(x: Tensor) -> Tensor:
    """Each value by itself, linear up to about 1 and logarithmic beyond: sign(x)·log(1 + |x|)."""
    x = x.double()
    return (x.sign() * x.abs().log1p()).float()
