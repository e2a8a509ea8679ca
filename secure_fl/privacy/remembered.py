"""What objects hold between calls: a digest for each parameter, buffer, attribute, captured
variable and generator.

Whatever changes when examples pass through holds something of them. A buffer leaves the client with
the model; a counter, a list or a memory bank changes what later examples meet. Two readings, one
before and one after, show both, wherever they are kept: in modules, on tensors, in other objects,
their slots and their classes, containers, closures, defaults, and globals that a function, a method
or a function within them reads, also by the name of their module.

**Not covered**: state outside of Python's view (files, C extensions, iterators under way, caches of
`functools`), globals that functions of installed packages read, and objects of torch, numpy and
kornia other than their modules, tensors and generators. kornia's augmentations note the coins of
their last call: attributes of theirs, and of classes made of them, that begin with an underscore
are left out.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import itertools
import os
import random
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterator, Mapping
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

from secure_fl.errors import PrivacyError
from secure_fl.privacy.row_isolation import HOOKS

_NUMBERS = (int, float, complex, itertools.count)
_PLAIN = (*_NUMBERS, str, bytes, type(None), Enum, torch.dtype, torch.device)
_INSIDE = frozenset(vars(nn.Module())) - set(HOOKS)
"""Attributes of every module; parameters, buffers, submodules are read by their names."""
_LIBRARIES = {"torch", "numpy", "kornia", "builtins", "logging", "threading"}
_CLOSED = frozenset({*_LIBRARIES, "weakref", "typing", "re", "pathlib", "abc"})
"""Packages whose objects are not opened."""
_OURS = frozenset({"secure_fl", "secure_fl_kernels"})
_PATHS = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
_INSTALLED = tuple({f"{path}{os.sep}" for path in _PATHS})
"""Where packages are: globals of their functions and methods are not read."""
_NATIVE = (
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
)
"""Written in C: nothing of theirs is read."""


def remembered(**objects: object) -> dict[str, bytes]:
    """A digest by path, such as `model.encoder.seen`, for everything that the objects hold."""
    found: dict[str, bytes] = {}
    seen: dict[int, object] = {}
    for name, value in objects.items():
        _visit(value, name, found, seen)
    return found


def changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[str]:
    """Paths whose content differs, is new or is gone, in order."""
    return sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )


def _visit(value: object, path: str, found: dict[str, bytes], seen: dict[int, object]) -> None:
    """All that a value holds, in order; not by recursion, as chains of functions are long."""
    left = [(path, value)]
    while left:
        path, value = left.pop()
        leaf = _leaf(value)
        if leaf is None:
            found[path], parts = type(value).__qualname__.encode(), list(_parts(value))
        else:
            found[path] = hashlib.blake2b(leaf, digest_size=16).digest()
            parts = list(vars(value).items()) if isinstance(value, Tensor) else []
        if id(value) not in seen and parts:
            seen[id(value)] = value
            left += reversed([(f"{path}.{name}" if name else path, part) for name, part in parts])


def _leaf(value: object) -> bytes | None:
    """All that a value without parts is; None for what has parts."""
    if isinstance(value, Tensor):
        flat = value.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        return repr((value.dtype, tuple(value.shape))).encode() + flat.numpy().tobytes()
    if isinstance(value, _PLAIN):
        return repr(value).encode()
    if isinstance(value, np.ndarray | np.generic):
        content = repr(value.tolist()).encode() if value.dtype == object else value.tobytes()
        return repr((value.dtype, value.shape)).encode() + content
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state).encode()
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False)).encode()
    if isinstance(value, random.Random):
        return repr(value.getstate()).encode()
    if isinstance(value, list | tuple | deque | set | frozenset) and all(
        isinstance(item, _PLAIN) for item in value
    ):
        order = sorted if isinstance(value, set | frozenset) else list
        return f"{type(value).__name__}{order(map(repr, value))}".encode()
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """(name, part) of a value that is made of others."""
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple | deque | set | frozenset):
        yield from ((str(number), part) for number, part in enumerate(value))
    elif isinstance(value, nn.Module):
        yield from _module_parts(value)
        yield from _class_parts(value)
    elif isinstance(value, functools.partial):
        yield from (("", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield from (("", value.__func__), ("self", value.__self__))
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, property | classmethod | staticmethod):
        functions = (value.fget, value.fset) if isinstance(value, property) else (value.__func__,)
        yield from (("", function) for function in functions if function is not None)
    elif isinstance(value, type):
        yield from _held_by_class(value)
    elif not isinstance(value, types.ModuleType) and _package(type(value)) not in _CLOSED:
        yield from getattr(value, "__dict__", {}).items()
        slots = {
            name for kind in type(value).__mro__ for name in _names(getattr(kind, "__slots__", ()))
        }
        yield from ((name, getattr(value, name)) for name in sorted(slots) if hasattr(value, name))
        yield from _class_parts(value)


def _module_parts(module: nn.Module) -> Iterator[tuple[str, object]]:
    own: dict[str, object] = {**module._parameters, **module._buffers, **module._modules}
    yield from own.items()
    notes = any(_package(kind) == "kornia" for kind in type(module).__mro__)
    for name, part in vars(module).items():
        if name not in _INSIDE | own.keys() and not (notes and name.startswith("_")):
            yield name, part


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """What a function holds, and the globals that it reads: also those of other functions, unless
    they are of this or of a closed package.
    """
    captured = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    yield from ((name, cell.cell_contents) for name, cell in captured if _filled(cell))
    yield from (("defaults", function.__defaults__), ("keyword defaults", function.__kwdefaults__))
    yield from vars(function).items()
    if _callers(function):
        for name, attribute in _globals_read(function.__code__):
            part = function.__globals__.get(name)
            if not isinstance(part, types.ModuleType):
                attribute = ""
            elif part.__name__.split(".")[0] not in _CLOSED | _OURS:
                part = vars(part).get(attribute)
            if part is not None and _opened(part):
                yield f"{name}.{attribute}" if attribute else name, part


@functools.lru_cache(maxsize=4096)
def _globals_read(code: types.CodeType) -> tuple[tuple[str, str], ...]:
    """(name, attribute taken of it or "") of globals in a function's code, inner ones too."""
    found, steps = dict[tuple[str, str], None](), list(dis.get_instructions(code))
    for step, following in itertools.pairwise([*steps, steps[-1]]):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"):
            taken = following.opname in ("LOAD_ATTR", "LOAD_METHOD")
            found[step.argval, following.argval if taken else ""] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= dict.fromkeys(_globals_read(constant))
    return tuple(found)


def _opened(part: object) -> bool:
    """Whether a global is looked into."""
    if isinstance(part, type | types.FunctionType):
        return _callers(part)
    return not isinstance(part, (types.ModuleType, *_NATIVE))


def _callers(thing: type | types.FunctionType) -> bool:
    """Whether a class or function is a caller's own, and not an installed package's."""
    if _package(thing) in _CLOSED | _OURS:
        return False
    if isinstance(thing, types.FunctionType):
        file: str | None = thing.__code__.co_filename
    else:
        file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    return not (file or "").startswith(_INSTALLED)


def _class_parts(value: object) -> Iterator[tuple[str, object]]:
    """Classes of a caller's object: they may count instances, and methods read globals."""
    for kind in type(value).__mro__:
        if _package(kind) not in _CLOSED | _OURS:
            yield kind.__name__, kind


def _held_by_class(kind: type) -> Iterator[tuple[str, object]]:
    """Attributes and methods of a caller's class."""
    for name, part in vars(kind).items() if _package(kind) not in _CLOSED | _OURS else ():
        made = isinstance(part, types.FunctionType) and name not in ("__init__", "__new__")
        if (made or not name.startswith("__")) and not isinstance(part, _NATIVE):
            yield name, part


def _package(thing: type | types.FunctionType) -> str:
    return str(thing.__module__).split(".")[0]


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _names(slots: object) -> tuple[str, ...]:
    names = (slots,) if isinstance(slots, str) else slots if isinstance(slots, tuple | list) else ()
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def remembers(path: str) -> PrivacyError:
    """The refusal of something that keeps what it sees."""
    remedy = "keep nothing between calls: it would reach others, or leave, without noise"
    return PrivacyError("changes with the examples that it sees", path, "its content", remedy)
