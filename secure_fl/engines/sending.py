"""What goes between a run and its worker processes: values as JSON, tensors as safetensors.

Nothing is pickled, so a worker is sent what has a form of its own: configurations, examples,
states, opened sums, releases. A caller's own encoder or augmentation is code: it is named, and the
worker imports it; what has no name in a module cannot be sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from secure_fl import errors
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.errors import ConfigError, SecureFLError, TrainingError
from secure_fl.federation.asks import PoolScore
from secure_fl.federation.observe import Seen
from secure_fl.federation.summing import Summed
from secure_fl.federation.tensors import pack, unpack
from secure_fl.secure_sum.grid import Blocks

_LENGTH = 8
_PARTS = ("train", "validation", "test", "sketched")
Tensors = Mapping[str, Tensor]


def encode(head: Mapping[str, Any], tensors: Tensors | None = None) -> bytes:
    """JSON values and tensors as bytes: the length of the head, the head, safetensors. Floats keep
    every bit.
    """
    text = json.dumps(head).encode()
    own = {name: tensor.detach().cpu().clone() for name, tensor in (tensors or {}).items()}
    return b"".join((len(text).to_bytes(_LENGTH, "big"), text, pack(own)))


def decode(data: bytes | memoryview) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `encode` wrote, in a process of the same run."""
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
    head = json.loads(bytes(data[_LENGTH:end]))
    return head, unpack(bytes(data[end:]), field="worker", value="not shown", remedy="")


def of_bytes(data: bytes) -> Tensor:
    """Bytes as a tensor, uint8 `[N]`."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def client_packet(client: ClientData) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One client's examples."""
    head: dict[str, Any] = {name: getattr(client, name) for name in ("id", "group", "note", "name")}
    tensors: dict[str, Tensor] = {}
    for part in _PARTS:
        data = getattr(client, part)
        values = (
            {} if data is None else {each.name: getattr(data, each.name) for each in fields(data)}
        )
        found = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        tensors |= {f"{part}.{name}": tensor for name, tensor in found.items()}
        rest = {name: value for name, value in values.items() if name not in found}
        head[part] = None if data is None else rest
    return head, tensors


def client_of(head: Mapping[str, Any], tensors: Tensors) -> ClientData:
    """What `client_packet` took apart."""
    values = dict(head)
    for part in _PARTS:
        if values[part] is None:
            continue
        facts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values[part].items()
        }
        start = f"{part}."
        own = {
            name.removeprefix(start): tensor
            for name, tensor in tensors.items()
            if name.startswith(start)
        }
        values[part] = Dataset(**(facts | own))
    return ClientData(**values)


def seen_document(seen: Seen) -> dict[str, Any]:
    """What is read off a client, as JSON."""
    score = None if seen.score is None else asdict(seen.score)
    terms, exploded, cut = dict(seen.terms), seen.exploded, seen.cut
    return {"terms": terms, "exploded": exploded, "cut": cut, "score": score}


def seen_of(value: Mapping[str, Any]) -> Seen:
    """What `seen_document` wrote."""
    score = value["score"]
    found = None if score is None else PoolScore(**score | {"losses": tuple(score["losses"])})
    return Seen(value["terms"], value["exploded"], value["cut"], found)


def summed_packet(summed: Summed) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Opened sums: the total, and each group's."""
    tensors: dict[str, Tensor] = {}
    for number, each in enumerate((summed, *summed.groups)):
        blocks = {"head": each.total.head, "shared": each.total.shared, "pools": each.total.pools}
        tensors |= {f"{number}.{name}": block for name, block in blocks.items()}
    survivors = [each.survivors for each in (summed, *summed.groups)]
    return {"survivors": survivors, "left_out": list(summed.left_out)}, tensors


def summed_of(head: Mapping[str, Any], tensors: Tensors) -> Summed:
    """What `summed_packet` took apart."""
    blocks = [
        Blocks(*(tensors[f"{number}.{name}"] for name in ("head", "shared", "pools")))
        for number in range(len(head["survivors"]))
    ]
    whole, *groups = zip(blocks, head["survivors"], strict=True)
    return Summed(*whole, tuple(Summed(*group) for group in groups), tuple(head["left_out"]))


def error_document(error: Exception) -> dict[str, Any]:
    """An error as JSON; of one that nobody raised on purpose its kind alone, as its words may hold
    an example.
    """
    if not isinstance(error, SecureFLError):
        error = TrainingError(
            f"a client's computation raises {type(error).__name__}",
            field="runtime.workers",
            value="in a worker process",
            remedy="set runtime.workers = 1 to see where; the run can be resumed",
        )
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
    value = error.value if isinstance(error.value, str | int | float | None) else repr(error.value)
    said = {"problem": error.problem, "field": error.field, "remedy": error.remedy}
    return {"kind": kinds[0], "text": str(error), "value": value, **said}


def error_of(value: Mapping[str, Any]) -> SecureFLError:
    """What `error_document` wrote, with the same words."""
    kind: type[SecureFLError] = getattr(errors, value["kind"])
    error = kind.__new__(kind, value["text"])
    vars(error).update({name: value[name] for name in ("problem", "field", "value", "remedy")})
    return error


def name_of(function: Callable[..., Any] | None, field: str) -> str | None:
    """`module:name`, under which a worker process finds a caller's function; None for none. Raises
    ConfigError: it has no such name: a module, a lambda, a function within a function, or one of
    the script itself.
    """
    if function is None:
        return None
    module, name = (getattr(function, each, "") for each in ("__module__", "__qualname__"))
    known = module not in ("", None, "__main__") and name.isidentifier()
    if known and getattr(import_module(module), name, None) is function:
        return f"{module}:{name}"
    problem = f"the {field} cannot be sent to worker processes, which nothing is pickled for"
    remedy = (
        f"pass a function that a module of yours defines as {field}, or set runtime.workers = 1"
    )
    raise ConfigError(problem, "runtime.workers", name or type(function).__name__, remedy)


def named(name: str | None) -> Any:
    """What `name_of` named."""
    if name is None:
        return None
    module, function = name.split(":")
    return getattr(import_module(module), function)
