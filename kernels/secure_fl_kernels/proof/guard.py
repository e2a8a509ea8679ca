"""A guard around interpreted kernels: every lane must fall on an element of a tensor that its own
launch was given.

Tensors are taken from the launch itself, so a guard around any function covers the temporaries made
inside it. A view counts as its elements alone: neither the rest of its storage nor the gaps between
its rows. Within a launch the guard also knows which program touched what, and finds two programs
that depend on each other's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from triton.runtime import interpreter as machine

Ints = np.ndarray[Any, np.dtype[np.int64]]
Action = Literal["load", "store", "atomic"]

_NOBODY, _SEVERAL = -1, -2
"""In place of a program's number: none has touched this element, or more than one has loaded it."""


class Violation(Exception):  # noqa: N818  # it is what the kernel did, not what went wrong here
    """Something that a kernel must never do."""


class OutOfBounds(Violation):
    """Active lanes outside every tensor of the launch."""


class Race(Violation):
    """The result depends on the order of programs, or of lanes in one store."""


class Traffic:
    """Bytes moved by active lanes, per kernel and argument, and launches per kernel.

    A lane that loads what another lane has loaded counts again: this is what kernels ask for,
    before any cache.
    """

    def __init__(self) -> None:
        self.bytes: Counter[tuple[str, str, Action]] = Counter()
        self.launches: Counter[str] = Counter()

    def loaded(self, kernel: str | None = None, argument: str | None = None) -> int:
        """Bytes loaded, of one kernel or all, through one argument or all."""
        return self._sum("load", kernel, argument)

    def stored(self, kernel: str | None = None, argument: str | None = None) -> int:
        """Bytes stored; atomics are counted apart, under `atomic` in `bytes`."""
        return self._sum("store", kernel, argument)

    def _sum(self, action: Action, kernel: str | None, argument: str | None) -> int:
        return sum(
            n
            for (k, a, what), n in self.bytes.items()
            if what == action and kernel in (None, k) and argument in (None, a)
        )


class _Region:
    """The elements of one tensor, by address."""

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name, self.item, self.start = name, tensor.element_size(), tensor.data_ptr()
        self.storage = tensor.untyped_storage()
        steps = [
            (stride * self.item, size)
            for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
            if size > 1 and stride
        ]
        self.steps = sorted(steps, reverse=True)
        self.stop = self.start + (
            sum(step * (size - 1) for step, size in steps) + self.item if tensor.numel() else 0
        )
        self.gaps = tensor.numel() > 0 and not _dense(self.steps, self.item)

    def holds(self, first: Ints, width: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of the accesses of `width` bytes at `first` fall on elements."""
        inside = (first >= self.start) & (first + width <= self.stop)
        if self.gaps:
            inside &= self._element(first) & self._element(first + width - 1)
        return inside

    def _element(self, address: Ints) -> np.ndarray[Any, np.dtype[np.bool_]]:
        rest, inside = address - self.start, np.ones(address.shape, bool)
        for step, size in self.steps:
            inside &= rest // step < size
            rest = rest % step
        result: np.ndarray[Any, np.dtype[np.bool_]] = inside & (rest < self.item)
        return result


def _dense(steps: Sequence[tuple[int, int]], item: int) -> bool:
    for step, size in reversed(steps):
        if step > item:
            return False
        item = max(item, step * size)
    return True


class _Shadow:
    """Who stored and who loaded each element of a storage during one launch."""

    def __init__(self, storage: torch.UntypedStorage, item: int) -> None:
        self.start, self.item, self.size = (
            storage.data_ptr(),
            item,
            max(1, storage.nbytes() // item),
        )
        self.writer, self.reader = (np.full(self.size, _NOBODY, np.int32) for _ in range(2))

    def at(self, address: Ints) -> Ints:
        return (address - self.start) // self.item

    def load(self, spots: Ints, program: int) -> str | None:
        if _others(self.writer[spots], program):
            return "loads what another program has stored"
        before = self.reader[spots]
        self.reader[spots] = np.where((before == _NOBODY) | (before == program), program, _SEVERAL)
        return None

    def store(self, spots: Ints, program: int, values: np.ndarray[Any, Any]) -> str | None:
        if _others(self.writer[spots], program):
            return "stores where another program has stored"
        if _others(self.reader[spots], program):
            return "stores what another program has loaded"
        self.writer[spots] = np.arange(len(spots))
        last = self.writer[spots]
        self.writer[spots] = program
        if (values[last] != values).any() and (values[last].tobytes() != values.tobytes()):
            return "stores different values to one element in one store"
        return None


def _others(owners: np.ndarray[Any, np.dtype[np.int32]], program: int) -> bool:
    return bool(((owners != _NOBODY) & (owners != program)).any())


class _Guard:
    """One `guarded` block; `launch` and `program` say what is running in it."""

    def __init__(self, tensors: Sequence[Tensor], races: bool) -> None:
        self.traffic, self.races = Traffic(), races
        self.given = [_Region(f"tensor {k}", tensor) for k, tensor in enumerate(tensors)]
        self.kernel, self.program, self.place = "", 0, (0, 0, 0)
        self.regions: list[_Region] = []
        self.shadows: dict[int, _Shadow] = {}

    def launch(self, kernel: str, tensors: Sequence[tuple[str, Tensor]]) -> None:
        self.kernel = kernel
        self.regions = [_Region(name, tensor) for name, tensor in tensors] + self.given
        items: dict[int, int] = {}
        for region in self.regions:
            key = region.storage.data_ptr()
            items[key] = min(items.get(key, region.item), region.item)
        self.shadows = (
            {
                r.storage.data_ptr(): _Shadow(r.storage, items[r.storage.data_ptr()])
                for r in self.regions
            }
            if self.races
            else {}
        )

    def access(self, action: Action, pointers: Any, mask: Any, value: Any) -> None:
        width = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        address = np.asarray(pointers.data).astype(np.int64)
        active = np.broadcast_to(np.asarray(getattr(mask, "data", mask), dtype=bool), address.shape)
        stored = None if value is None else np.broadcast_to(value.data, address.shape)[active]
        lanes, values = address[active], stored
        left = np.ones(lanes.shape, bool)
        for region in self.regions:
            if not left.any():
                break
            mine = left & region.holds(lanes, width)
            if mine.any():
                left &= ~mine
                for guard in _ACTIVE:
                    guard.traffic.bytes[self.kernel, region.name, action] += int(mine.sum()) * width
                self._order(action, region, lanes[mine], None if values is None else values[mine])
        if left.any():
            raise OutOfBounds(self._where() + self._astray(action, lanes[left], lanes.size, width))

    def _order(
        self, action: Action, region: _Region, lanes: Ints, values: np.ndarray[Any, Any] | None
    ) -> None:
        shadow = self.shadows.get(region.storage.data_ptr())
        if shadow is None or action == "atomic":
            return
        spots = shadow.at(lanes)
        wrong = (
            shadow.load(spots, self.program)
            if values is None
            else shadow.store(spots, self.program, values)
        )
        if wrong:
            raise Race(f"{self._where()}{wrong}, in {region.name}")

    def _where(self) -> str:
        return f"{self.kernel}, program {self.place}: "

    def _astray(self, action: Action, lanes: Ints, active: int, width: int) -> str:
        first = int(lanes[0])
        near = min(
            self.regions, key=lambda r: max(r.start - first, first - r.stop, 0), default=None
        )
        where = (
            "the launch has no tensors"
            if near is None
            else f"the first {first - near.start:+d} bytes from the start of {near.name}"
        )
        size = "" if near is None else f", which has {near.stop - near.start} bytes"
        return (
            f"{action} of {width} bytes out of bounds in {len(lanes)} of {active} active lanes, "
            f"{where}{size}"
        )


_ACTIVE: list[_Guard] = []
_HOOKED = "_secure_fl_hooked"


@contextmanager
def guarded(*tensors: Tensor, races: bool = True) -> Iterator[Traffic]:
    """Watch every interpreted launch inside the block.

    Blocks may be nested: each counts its own `Traffic`, and the innermost alone says what is
    a violation.

    Args:
        tensors: further tensors that lanes may touch, for kernels that get addresses in some other
            way than as arguments.
        races: whether to find races too. Atomics are never taken for one.

    Raises:
        OutOfBounds: an active lane misses every tensor of its launch; nothing is read or written by
            that access.
        Race: programs touch the same element and at least one of them stores, or one store gives an
            element two values.
    """
    hook()
    guard = _Guard(tensors, races)
    _ACTIVE.append(guard)
    try:
        yield guard.traffic
    finally:
        _ACTIVE.remove(guard)


def hook() -> None:
    """Put the guards' eyes into the interpreter, once."""
    builder, executor = machine.InterpreterBuilder, machine.GridExecutor
    if hasattr(builder, _HOOKED):
        return
    builder.create_masked_load = _watching(builder.create_masked_load, "load", pointers=0, mask=1)
    builder.create_masked_store = _watching(
        builder.create_masked_store, "store", pointers=0, mask=2, value=1
    )
    builder.create_atomic_rmw = _watching(builder.create_atomic_rmw, "atomic", pointers=1, mask=3)
    builder.create_atomic_cas = _watching(builder.create_atomic_cas, "atomic", pointers=0)
    builder.set_grid_idx = _counting(builder.set_grid_idx)
    executor._init_args_hst = _announcing(executor._init_args_hst)
    executor.__call__ = _unwrapping(executor.__call__)
    setattr(builder, _HOOKED, True)


def _watching(
    original: Callable[..., Any],
    action: Action,
    pointers: int,
    mask: int | None = None,
    value: int | None = None,
) -> Callable[..., Any]:
    """`original` of the interpreter's builder, with the places of its arguments."""

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _ACTIVE:
            _ACTIVE[-1].access(
                action,
                args[pointers],
                True if mask is None else args[mask],
                None if value is None else args[value],
            )
        return original(self, *args, **kwargs)

    return watched


def _counting(original: Callable[..., Any]) -> Callable[..., Any]:
    def set_grid_idx(self: Any, x: int, y: int, z: int) -> None:
        original(self, x, y, z)
        if _ACTIVE:
            _ACTIVE[-1].place = (x, y, z)
            _ACTIVE[-1].program = (x * self.grid_dim[1] + y) * self.grid_dim[2] + z

    return set_grid_idx


def _announcing(original: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments as the interpreter holds them: on the processor, whatever device they
    came from.
    """

    def init(self: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        hosted, named = original(self, args, kwargs)
        every = [*zip(self.arg_names, hosted, strict=False), *named.items()]
        tensors = [pair for name, value in every for pair in _tensors(name, value)]
        for guard in _ACTIVE:
            guard.traffic.launches[self.fn.__name__] += 1
        if _ACTIVE:
            _ACTIVE[-1].launch(self.fn.__name__, tensors)
        return hosted, named

    return init


def _unwrapping(original: Callable[..., Any]) -> Callable[..., Any]:
    """The interpreter wraps what a kernel raises, once per function it is inside of; a violation
    comes out bare.
    """

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, Violation):
                cause = cause.__cause__
            if cause is None:
                raise
            raise cause from None

    return call


def _tensors(name: str, value: Any) -> list[tuple[str, Tensor]]:
    """Tensors in an argument: itself, in a tuple, under a descriptor or a wrapper that reinterprets
    its type.
    """
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, tuple):
        return [pair for k, part in enumerate(value) for pair in _tensors(f"{name}[{k}]", part)]
    inner = getattr(value, "base", None)
    return [] if inner is None else _tensors(name, inner)
