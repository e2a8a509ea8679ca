"""What a warning advises: settings that this configuration lacks and could have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secure_fl.config.federation import FederationConfig
from secure_fl.errors import ConfigError

Value = str | int | float | bool


@dataclass(frozen=True)
class Setting:
    """Advice to set `field` (such as `pools.start`) to `value`."""

    field: str
    value: Value

    def words(self, config: FederationConfig) -> str | None:
        """The advice in words; None where it is set already, or would be refused."""
        if value_of(config, self.field) == self.value or not _allowed(
            config, self.field, self.value
        ):
            return None
        return f"set {self.field} = {_toml(self.value)}"


@dataclass(frozen=True)
class _Towards:
    """Advice to move a number away from what it is; `limit`: a value that it cannot pass."""

    field: str
    limit: float | None = None
    up: ClassVar[bool]

    def words(self, config: FederationConfig) -> str | None:
        """The advice in words; None where the setting is at its limit already."""
        value = float(value_of(config, self.field))
        if self.limit is not None and (value >= self.limit if self.up else value <= self.limit):
            return None
        verb, side = ("raise", "above") if self.up else ("lower", "below")
        return f"{verb} {self.field} {side} {value:g}"


class Raise(_Towards):
    """Advice to raise a number above what it is."""

    up = True


class Lower(_Towards):
    """Advice to lower a number below what it is."""

    up = False


Option = Setting | Raise | Lower | str


def advise(config: FederationConfig, *options: Option) -> str:
    """The options that this configuration leaves open, as a sentence; a string is always one."""
    words = [each if isinstance(each, str) else each.words(config) for each in options]
    said = [each for each in words if each is not None]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])}, or {said[-1]}" if said else ""


def value_of(config: FederationConfig, field: str) -> Value:
    """A setting by its path."""
    table, _, name = field.partition(".")
    value: Value = getattr(getattr(config, table), name)
    return value


def _allowed(config: FederationConfig, field: str, value: Value) -> bool:
    table, _, name = field.partition(".")
    tables = config.model_dump()
    tables[table][name] = value
    try:
        FederationConfig(**tables)
    except ConfigError:
        return False
    return True


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"
