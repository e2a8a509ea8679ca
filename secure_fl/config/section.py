"""What every table of the configuration is: frozen, strict, its errors typed."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from secure_fl.errors import ConfigError
from secure_fl.paths import at_home

_LEAST, _MOST, _LONGEST = 1e-30, 2**62, 4000
_SHOWN = 3
_PROBLEMS = {"model_type": "is no table", "tuple_type": "is no list"}
_BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}


class Section(BaseModel):
    """A table of the configuration: frozen, unknown keys refused, errors typed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
    table: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """What a setting means is one line, however its docstring is wrapped."""
        for field in cls.model_fields.values():
            field.description = " ".join((field.description or "").split()) or None

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _typed(error, type(self)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """true, which would be read as 1, where a number belongs."""
        if isinstance(value, bool) and info.field_name is not None:
            kinds = _kinds(cls.model_fields[info.field_name].annotation)
            if not any(_is(kind, bool) for kind in kinds) and any(
                _is(kind, number) for kind in kinds for number in (int, float)
            ):
                raise PydanticCustomError("truth_value", "is a truth value, no number")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _sensible(cls, value: Any) -> Any:
        """Numbers that later arithmetic can hold, and text that can be a path."""
        if isinstance(value, int | float) and value != 0 and not _LEAST <= abs(value) <= _MOST:
            raise ValueError(
                f"beyond any sense: use a number between {_LEAST:g} and {float(_MOST):g}"
            )
        if isinstance(value, str) and any(ord(letter) < 32 for letter in value):
            raise ValueError("holds a control character")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise ValueError(f"is longer than {_LONGEST} letters")
        return value


Rule = tuple[bool, str, object, str, str]
"""(holds, field, value, problem, remedy)."""


def require(rules: Iterable[Rule]) -> None:
    """Do nothing if every rule holds.

    Raises:
        ConfigError: of the first that does not.
    """
    for holds, field, value, problem, remedy in rules:
        if not holds:
            raise ConfigError(problem, field=field, value=value, remedy=remedy)


PathText = Annotated[str, AfterValidator(at_home)]
"""A setting that names a file or folder."""


_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a finite number"),
    (str, "text"),
    (datetime.date, "a date without quotes, such as 2026-01-31"),
    (Section, "a table of settings"),
    (tuple, "a list"),
)
"""Kinds of settings in words; the first that fits, since a truth value is an integer to Python."""


def _typed(error: ValidationError, section: type[Section]) -> ConfigError:
    """The first of pydantic's complaints, as ours."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in (*filter(None, [section.table]), *first["loc"]))
    if first["type"] == "extra_forbidden":
        near = _near(str(first["loc"][-1]), section)
        remedy = f"did you mean {' or '.join(near)}?"
        if not near:
            remedy = "known keys: " + ", ".join(section.model_fields)
        return ConfigError("unknown key", field=path, value=first["input"], remedy=remedy)
    problem = _PROBLEMS.get(
        first["type"],
        str(first["msg"]).removeprefix("Value error, ").replace("Input should", "should", 1),
    )
    field = section.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    if first["type"] == "value_error" and ": " in problem:  # our own, which brings its remedy
        problem, _, remedy = problem.partition(": ")
        return ConfigError(
            problem, field=path or "configuration", value=first.get("input"), remedy=remedy
        )
    if field is None:
        remedy = "see `secure-fl init` for a commented example"
        return ConfigError(
            problem, field=path or "configuration", value=first.get("input"), remedy=remedy
        )
    said = f" ({field.description})" if field.description else ""
    return ConfigError(
        problem, field=path, value=first.get("input"), remedy=f"set it to {_wanted(field)}{said}"
    )


def _wanted(field: FieldInfo) -> str:
    """What a setting takes, in words: its kind and its bounds."""
    kinds = [kind for kind in _kinds(field.annotation) if kind is not type(None)]
    if words := [
        f'"{value}"' for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)
    ]:
        return f"one of {', '.join(words)}"
    said = next(
        (said for known, said in _KINDS if any(_is(kind, known) for kind in kinds)),
        "a value of another kind",
    )
    bounds = {
        name: bound
        for each in field.metadata
        for name in _BOUNDS
        if (bound := getattr(each, name, None)) is not None
    }
    if not any(_is(kind, number) for kind in kinds for number in (int, float)):
        return said
    return " ".join([said, *(f"{_BOUNDS[name]} {bound}" for name, bound in bounds.items())])


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a setting's type."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for each in get_args(annotation) for kind in _kinds(each))
    return _kinds(get_args(annotation)[0]) if get_origin(annotation) is Annotated else (annotation,)


def _is(kind: Any, known: type) -> bool:
    """Whether a type is, or is made of, a known one."""
    found = get_origin(kind) or kind
    return isinstance(found, type) and issubclass(found, known)


def _near(key: str, section: type[Section]) -> list[str]:
    """Dotted names of settings that an unknown key of a section may have meant, best first.

    A key nearly of this section's own, else the same key of other tables, else what is nearly
    one there.
    """
    prefix = f"{section.table}." if section.table else ""
    own = difflib.get_close_matches(key, list(section.model_fields), n=1, cutoff=0.75)
    if own:
        return [prefix + own[0]]
    names = _settings()
    same = [name for name in names if name.rpartition(".")[2] == key]
    if same:
        return same[:_SHOWN]
    last = difflib.get_close_matches(
        key, sorted({name.rpartition(".")[2] for name in names}), n=1, cutoff=0.75
    )
    if last:
        return [name for name in names if name.rpartition(".")[2] == last[0]][:_SHOWN]
    own = difflib.get_close_matches(key, list(section.model_fields), n=1)
    return [prefix + name for name in own] or difflib.get_close_matches(
        prefix + key, names, n=1, cutoff=0.75
    )


def _settings() -> list[str]:
    """Dotted names of all settings and tables of a run."""
    from secure_fl.config.federation import FederationConfig  # which is made of sections

    def below(section: type[Section], prefix: str) -> Iterator[str]:
        for name, field in section.model_fields.items():
            yield prefix + name
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and issubclass(kind, Section):
                    yield from below(kind, f"{prefix}{name}.")

    return list(below(FederationConfig, ""))
