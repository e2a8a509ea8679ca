"""How the columns of tables are brought to one scale: what the settings of [data] must agree on
before any data is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from secure_fl.config.cohorts import Rule

if TYPE_CHECKING:
    from secure_fl.config.data_tables import DataConfig
    from secure_fl.config.privacy import PrivacyConfig


def column_rules(data: DataConfig, privacy: PrivacyConfig) -> Iterator[Rule]:
    """What must hold of `data.scale`, `data.column_means` and `data.column_deviations`."""
    means, deviations = data.column_means, data.column_deviations
    given = means is not None or deviations is not None
    lengths = tuple(None if numbers is None else len(numbers) for numbers in (means, deviations))
    yield (
        data.scale != "per_client" or privacy.unit != "example",
        "data.scale",
        data.scale,
        (
            "a client's own statistics tie each of its examples to all others, and example-level "
            "privacy hides one at a time"
        ),
        (
            'set data.scale = "given", with public numbers in data.column_means and '
            "data.column_deviations"
        ),
    )
    yield (
        data.scale != "given" or given,
        "data.column_means",
        None,
        'data.scale = "given", and no means and deviations are given',
        "set data.column_means and data.column_deviations, one number a column each",
    )
    yield (
        lengths[0] == lengths[1],
        "data.column_deviations",
        f"{lengths[0]} means and {lengths[1]} deviations",
        "every column needs both a mean and a deviation",
        "give data.column_means and data.column_deviations as many numbers, one a column",
    )
    yield (
        not given or data.scale in ("auto", "given"),
        "data.scale",
        data.scale,
        "data.column_means are given and would not be used",
        'set data.scale = "given", or leave data.column_means and data.column_deviations out',
    )
