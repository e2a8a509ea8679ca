"""A self-test's trials in this process, for tests that start no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from secure_fl.audit.suite.catalogue import faults_at
from secure_fl.audit.suite.document import encoded
from secure_fl.audit.suite.planting import Planting
from secure_fl.audit.suite.worker import Answer


def here(
    tasks: Sequence[Mapping[str, Any]], _: int, told: Callable[[int, bytes], None], *__: object
) -> Iterator[Answer]:
    """As `answered`, in this process."""
    for at, task in enumerate(tasks):
        fault = faults_at(task["address"])[task["number"]]
        planting = Planting.of(fault, task["checks"])
        for seed in task["seeds"]:
            told(at, encoded(planting.trial(seed, planted=task["planted"])))
        yield Answer(at, b"")
