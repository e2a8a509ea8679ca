"""Configurations as TOML: reading, `--set` overrides, resolved copy, commented starter."""

from __future__ import annotations

import codecs
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from secure_fl.config import FederationConfig, Section
from secure_fl.errors import ConfigError, FileError
from secure_fl.files import read_bytes
from secure_fl.paths import path_of

Table = dict[str, Any]
_LARGEST = 1 << 22
_AS_UTF8 = (
    "name a TOML file, saved as UTF-8 by your editor (in PowerShell: Out-File -Encoding utf8)"
)


def load_config(
    path: Path | str, overrides: Sequence[str] = (), *, own_encoder: bool = False
) -> FederationConfig:
    """Read a TOML file, apply `a.b=c` overrides in order, validate as `config_of`.

    A relative path inside the file (`data.sources.path`, `pretrain.load_from`,
    `pretrain.source.path`) is relative to the working directory, as on the command line.

    Raises:
        ConfigError: the file is missing, unreadable or no TOML, an override has no `=`, or a value
            is refused.
    """
    table = read_table(path_of(path, "configuration"))
    for override in overrides:
        _apply(table, override)
    return config_of(table, own_encoder=own_encoder)


def config_of(tables: Mapping[str, Any], *, own_encoder: bool = False) -> FederationConfig:
    """The configuration of tables. Where they leave `pretrain.method` open, a loaded encoder is
    taken for what that run's was, and a caller's own is trained.

    Raises:
        ConfigError: a value is refused.
    """
    pretrain = tables.get("pretrain") or {}
    if isinstance(pretrain, dict) and pretrain.get("method") in (None, "auto"):
        found = "train" if own_encoder else None
        if pretrain.get("mode") == "load":
            found = found or _method_of_run(pretrain.get("load_from"))
        if found is not None:
            tables = {**tables, "pretrain": {**pretrain, "method": found}}
    return FederationConfig(**tables)


def _method_of_run(folder: object) -> str | None:
    """How the encoder in a run's folder was made; None where the folder does not tell: whoever
    loads it says what is wrong with it.
    """
    try:
        table = read_table(path_of(folder, "pretrain.load_from") / "config.toml")
        return str(table["pretrain"]["method"])
    except (ConfigError, LookupError, TypeError):
        return None


def dump_config(config: FederationConfig) -> str:
    """The resolved configuration as TOML; `load_config` reads it back to an equal one."""
    return tomli_w.dumps(_without_none(config.model_dump(mode="json")), multiline_strings=False)


def starter_config() -> str:
    """A TOML file with every setting and its default, each behind a `#`: some have another default
    under differential privacy, and what a file sets stays.
    """
    head = [
        "# A secure_fl run. Lines such as `#seed = 0` are settings at their defaults: take the `#`",
        "# off what you change. Some have another default under differential privacy.",
    ]
    return "\n".join([*head, "", *commented(FederationConfig(), off=True)]).rstrip() + "\n"


def config_schema() -> str:
    """JSON schema of the configuration, for editors."""
    return json.dumps(FederationConfig.model_json_schema(), indent=2) + "\n"


def read_table(
    path: Path, field: str = "configuration", maker: str = "secure-fl init NAME.toml"
) -> Table:
    """The tables of a TOML file; errors tell `field`, what it is, and `maker`, what writes one.

    Raises:
        ConfigError: the file is missing, unreadable or no TOML in UTF-8.
    """

    def refused(problem: str, remedy: str) -> ConfigError:
        return ConfigError(problem, field=field, value=str(path), remedy=remedy)

    try:
        return _parse(_decoded(read_bytes(path, most=_LARGEST), path, field))
    except FileError as error:
        problem = "not a text file" if path.is_dir() else error.problem
        problem = problem if path.exists() else "no such file"
        raise refused(problem, f"name a TOML file; `{maker}` writes one") from None
    except UnicodeDecodeError:
        raise refused("not text in UTF-8", _AS_UTF8) from None
    except tomllib.TOMLDecodeError as error:
        remedy = "mend the line named"
        if path.suffix.lower() != ".toml" and field == "configuration":
            remedy = f"name a TOML file: `secure-fl init my.toml --data {path}` writes one"
        raise refused(f"not valid TOML: {error}", remedy) from None


def _decoded(data: bytes, path: Path, field: str) -> str:
    """Text of a TOML file, which is UTF-8; the byte order mark that some editors put before it
    is dropped.

    Raises:
        ConfigError: it is UTF-16 or UTF-32, as some editors and shells write by themselves.
        UnicodeDecodeError: it is no UTF-8 otherwise.
    """
    # of UTF-32 every ASCII letter brings three null bytes
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        problem = "text in UTF-16 or UTF-32, which TOML is not"
        raise ConfigError(problem, field=field, value=str(path), remedy=_AS_UTF8)
    return data.decode("utf-8-sig")


def _parse(text: str) -> Table:
    """TOML; what no setting can be, such as a number of thousands of digits, is none either."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise tomllib.TOMLDecodeError(type(error).__name__) from None


def _apply(table: Table, override: str) -> None:
    """Set one dotted key; the value is read as TOML, and as a plain string where it is none."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        remedy = "for example --set pools.count=4"
        raise ConfigError("not of the form a.b=c", field="--set", value=override, remedy=remedy)
    try:
        value = _parse(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, last = key.strip().split(".")
    here: Any = table
    for part in parents:
        here = _step(_only(here, part), part, override)
    here = _only(here, last)
    if isinstance(here, list):
        _step(here, last, override)
        here[int(last)] = value
    else:
        here[last] = value


def _only(here: Any, part: str) -> Any:
    """The one item of a list that a key steps into by name: `data.sources.path`, of one source."""
    return here[0] if isinstance(here, list) and len(here) == 1 and not part.isdigit() else here


def _step(here: Any, part: str, override: str) -> Any:
    """Descend one part of a dotted key, making tables; list items are named by number."""
    if isinstance(here, list):
        if not part.isdigit() or int(part) >= len(here):
            remedy = f"say which by a number below {len(here)}: data.sources.0.path"
            raise ConfigError("no such list item", field="--set", value=override, remedy=remedy)
        return here[int(part)]
    if part == "sources" and "sources" not in here:
        here[part] = [{}]
    child = here.setdefault(part, {})
    if not isinstance(child, dict | list):
        problem = f"{part!r} is a value, not a table"
        raise ConfigError(problem, field="--set", value=override, remedy="shorten the key")
    return child


def _without_none(value: Any) -> Any:
    """TOML has no null: an unset optional setting is left out."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def commented(section: Section, prefix: str = "", *, off: bool = False) -> Iterable[str]:
    """A section as lines of TOML, each setting under its description, tables last as TOML asks.

    Args:
        off: whether settings stand behind a `#` each.
    """
    tables: list[str] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            note = " ".join((type(value).__doc__ or "").partition("\n\n")[0].split())
            own = commented(value, f"{prefix}{name}.", off=off)
            tables += [f"# {note}", f"[{prefix}{name}]", *own]
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            for item in value:
                tables += [
                    f"# {field.description}",
                    f"[[{prefix}{name}]]",
                    *commented(item, f"{prefix}{name}.", off=off),
                ]
        else:
            yield f"# {field.description}"
            line = f"{name} =" if value is None else f"{name} = {_inline(value)}"
            yield f"#{line}" if off else f"# {line}" if value is None else line
    if tables or prefix:
        yield ""
    yield from tables


def _inline(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_inline, value))}]"
    return tomli_w.dumps({"_": value}, multiline_strings=False).removeprefix("_ = ").rstrip()
