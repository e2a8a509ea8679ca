"""Records: frozen values that a file holds as JSON, which know their fields.

A class names them once, with their types; reading (`files.parse_json`) refuses what it does not
name, and `document` writes what it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


class Record:
    """What a file says, as a frozen dataclass; a field that its class does not name is refused."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


def document(value: Any) -> Any:
    """A record, and all that is in it, as JSON values.

    A field that is None by default is left out while it is None; any other None is written as null.
    """
    if is_dataclass(value):
        named = ((each, getattr(value, each.name)) for each in fields(value))
        kept = {each.name: found for each, found in named if (found, each.default) != (None, None)}
        return document(kept)
    if isinstance(value, Mapping):
        return {str(name): document(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [document(item) for item in value]
    return value


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """What reads a kind of value; making one takes milliseconds, and a file has many lines."""
    named: object = kind
    return _adapter(named)


@lru_cache(maxsize=32)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def schema(kind: type, title: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a record's file; fields that it does not name are
    refused, as reading refuses them.
    """
    made = adapter(kind).json_schema()
    made.pop("title", None)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return {**head, **made}
