"""What every table of the configuration is: frozen, strict, its errors typed."""

from __future__ import annotations

import difflib
import os.path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator

from secure_fl.errors import ConfigError

_LEAST, _MOST = 1e-30, 2**62


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
        known = list(section.model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(known)
        return ConfigError("unknown key", field=path, value=first["input"], remedy=remedy)
    problem = str(first["msg"]).removeprefix("Value error, ")
    field = section.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    remedy = f"{field.description}" if field is not None and field.description else "see `secure-fl init` for a commented example"
    return ConfigError(problem, field=path or "configuration", value=first.get("input"), remedy=remedy)
