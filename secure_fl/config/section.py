"""What every table of the configuration is: frozen, strict, its errors typed."""

from __future__ import annotations

import difflib
import os.path
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator

from secure_fl.errors import ConfigError

_LEAST, _MOST = 1e-30, 2**62
_SHOWN = 3


class Section(BaseModel):
    """A table of the configuration: frozen, unknown keys refused, errors typed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    table: ClassVar[str] = ""

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _typed(error, type(self)) from None

    @field_validator("*", mode="after")
    @classmethod
    def _sensible(cls, value: Any) -> Any:
        """Numbers that later arithmetic can hold, far beyond what any setting needs; text that can be a path."""
        if isinstance(value, int | float) and value != 0 and not _LEAST <= abs(value) <= _MOST:
            raise ValueError(f"beyond any sense: use a number between {_LEAST:g} and {float(_MOST):g}")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds a null byte")
        return value


def _at_home(path: str) -> str:
    """A path whose leading `~` is the home folder; the one place where settings that name files are read."""
    if not path.startswith("~"):
        return path
    found = os.path.expanduser(path)  # noqa: PTH111 - of pathlib a missing home is a RuntimeError, and `~/` loses its form
    if found.startswith("~"):
        raise ValueError("names a home folder that is not known: write the whole path, or set HOME")
    return found


PathText = Annotated[str, AfterValidator(_at_home)]
"""A setting that names a file or folder."""


def _typed(error: ValidationError, section: type[Section]) -> ConfigError:
    """The first of pydantic's complaints, as ours."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in (*filter(None, [section.table]), *first["loc"]))
    if first["type"] == "extra_forbidden":
        near = _near(str(first["loc"][-1]), section)
        remedy = f"did you mean {' or '.join(near)}?" if near else "known keys: " + ", ".join(section.model_fields)
        return ConfigError("unknown key", field=path, value=first["input"], remedy=remedy)
    problem = str(first["msg"]).removeprefix("Value error, ")
    field = section.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    remedy = f"{field.description}" if field is not None and field.description else "see `secure-fl init` for a commented example"
    return ConfigError(problem, field=path or "configuration", value=first.get("input"), remedy=remedy)


def _near(key: str, section: type[Section]) -> list[str]:
    """Dotted names of settings that an unknown key of a section may have meant, best first.

    A key nearly of this section's own, else the same key of other tables, else what is nearly one there.
    """
    prefix = f"{section.table}." if section.table else ""
    own = difflib.get_close_matches(key, list(section.model_fields), n=1, cutoff=0.75)
    if own:
        return [prefix + own[0]]
    names = _settings()
    same = [name for name in names if name.rpartition(".")[2] == key]
    if same:
        return same[:_SHOWN]
    last = difflib.get_close_matches(key, sorted({name.rpartition(".")[2] for name in names}), n=1, cutoff=0.75)
    if last:
        return [name for name in names if name.rpartition(".")[2] == last[0]][:_SHOWN]
    own = difflib.get_close_matches(key, list(section.model_fields), n=1)
    return [prefix + name for name in own] or difflib.get_close_matches(prefix + key, names, n=1, cutoff=0.75)


def _settings() -> list[str]:
    """Dotted names of all settings and tables of a run."""
    from secure_fl.config.federation import FederationConfig  # which is made of sections

    def below(section: type[Section], prefix: str) -> Iterator[str]:
        for name, field in section.model_fields.items():
            yield prefix + name
            kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
            for kind in kinds:
                if issubclass(kind, Section):
                    yield from below(kind, f"{prefix}{name}.")

    return list(below(FederationConfig, ""))
