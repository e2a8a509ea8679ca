"""Whatever objects hold between calls is read, wherever it is kept."""

from __future__ import annotations

import functools
import itertools
import logging
import random
import threading
import types
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from kornia import augmentation
from torch import nn

from secure_fl.privacy.remembered import changes, remembered

SEEN, WEIGHT = [0], torch.zeros(1)
shared_state = types.ModuleType("shared_state")
shared_state.HELD = []  # type: ignore[attr-defined]


class Slots:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@dataclass
class Nested:
    parts: dict[str, list[Slots]] = field(default_factory=lambda: {"a": [Slots()]})

    def __call__(self) -> None:
        self.parts["a"][0]()

    def method(self) -> None:
        self()


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(2, dtype=torch.bfloat16))
        self.weight = nn.Parameter(torch.zeros(()))
        self.array, self.queue, self.names = np.zeros(3), deque[int](), set[str]()
        self.torch_generator = torch.Generator()
        self.numpy_generator = np.random.default_rng(0)
        self.python_generator = random.Random(0)
        self.numbers = itertools.count()


CHANGES: dict[str, Callable[[Holder], object]] = {
    "steps": lambda h: h.steps.add_(1),  # type: ignore[operator]
    "weight": lambda h: h.weight.data.add_(1),
    "array": lambda h: h.array.__setitem__(0, 1),
    "queue": lambda h: h.queue.append(1),
    "names": lambda h: h.names.add("x"),
    "torch_generator": lambda h: torch.rand(1, generator=h.torch_generator),
    "numpy_generator": lambda h: h.numpy_generator.random(),
    "python_generator": lambda h: h.python_generator.random(),
    "numbers": lambda h: next(h.numbers),
    "new": lambda h: setattr(h, "new", None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_under_its_name(name: str) -> None:
    holder = Holder()
    before = remembered(model=holder)
    assert changes(before, remembered(model=holder)) == []
    CHANGES[name](holder)
    assert [path.split(".")[1] for path in changes(before, remembered(model=holder))] == [name]


class Shared:
    """Counts in its class."""

    calls = 0

    def __call__(self) -> None:
        Shared.calls += 1


def counting_closure() -> Callable[[], None]:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    return call


def global_counter() -> None:
    SEEN[0] += 1


def calls_another() -> None:
    global_counter()


def default(seen: list[int] = []) -> None:  # noqa: B006 - the fault
    seen.append(1)


def by_a_function_within() -> None:
    def call() -> None:
        (lambda: SEEN.append(1))()

    call()


def by_its_module() -> None:
    shared_state.HELD.append(1)


def at_another_class() -> None:
    Shared.calls += 1


def on_a_tensor() -> None:
    WEIGHT.seen = getattr(WEIGHT, "seen", 0) + 1  # type: ignore[attr-defined]


class Methods:
    """What it counts is a global that methods read, one through another."""

    def __call__(self) -> int:
        return self.through

    @property
    def through(self) -> int:
        self.fixed()
        return 0

    @staticmethod
    def fixed() -> None:
        global_counter()


class Module(nn.Module):
    def forward(self) -> None:
        SEEN[0] += 1


@pytest.mark.parametrize(
    "call",
    [
        Slots(),
        Nested(),
        Nested().method,
        Shared(),
        counting_closure(),
        global_counter,
        calls_another,
        default,
        functools.partial(Slots.__call__, Slots()),
        by_a_function_within,
        by_its_module,
        at_another_class,
        on_a_tensor,
        Methods(),
        Module(),
    ],
    ids=[
        *(
            "slots",
            "nested",
            "method",
            "class",
            "closure",
            "global",
            "through another",
            "default",
            "partial",
        ),
        *("function within", "module", "another class", "tensor", "methods", "forward"),
    ],
)
def test_callables_that_count_are_found_out(call: Callable[[], None]) -> None:
    before = remembered(augment=call)
    call()
    assert changes(before, remembered(augment=call))


def test_a_global_that_is_called_like_an_attribute_is_not_read() -> None:
    class Other:
        def __init__(self) -> None:
            self.SEEN = len(shared_state.HELD)

        def __call__(self) -> int:
            return self.SEEN

    other = Other()
    before = remembered(augment=other)
    global_counter()
    by_its_module()
    assert changes(before, remembered(augment=other)) == []


def test_objects_in_circles_and_those_that_are_not_opened_end() -> None:
    one, other = Nested(), Nested()
    one.other, other.other = other, one  # type: ignore[attr-defined]
    held = {
        "a": one,
        "b": torch.nn,
        "c": type,
        "d": len,
        "e": np.dtype("f4"),
        "f": threading.Lock(),
        "g": logging.getLogger("x"),
        "h": Shared,
    }
    assert remembered(**held) == remembered(**held)
    assert len(remembered(**held)) < 80


def test_kornia_s_notes_of_its_last_coins_are_no_memory() -> None:
    flip = augmentation.RandomHorizontalFlip(p=0.5)
    flip(torch.rand(2, 1, 4, 4))
    before = remembered(augment=flip)
    flip(torch.rand(7, 1, 4, 4))
    assert changes(before, remembered(augment=flip)) == []
