"""Typed errors: each names the field, the value that was refused and a remedy.

Every error a user can cause derives from `SecureFLError`. `code` is stable, so scripts may match on
it; `docs/errors.md` has a paragraph for each. The value shown is a setting or a shape, never an
example, a weight or a key.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Self

_LONGEST_VALUE = 160


class SecureFLError(Exception):
    """Base of all errors raised on purpose.

    Args:
        problem: what is wrong, in one clause.
        field: the setting, argument, file or quantity concerned.
        value: what was found there; shortened when long.
        remedy: what the reader can do about it.
    """

    code: ClassVar[str] = "secure-fl"

    def __init__(self, problem: str, field: str, value: object, remedy: str) -> None:
        self.problem, self.field, self.value, self.remedy = problem, field, value, remedy
        super().__init__(
            _printable(f"[{self.code}] {field}: {problem} (got {_short(value)}). Remedy: {remedy}")
        )

    @classmethod
    def unshown(cls, problem: str, field: str, remedy: str) -> Self:
        """Of examples, whose values no message shows."""
        return cls(problem, field=field, value="not shown", remedy=remedy)

    @classmethod
    def of_file(cls, problem: str, path: Path, remedy: str) -> Self:
        """Of a file, by its name and path; never by its content."""
        return cls(problem, field=path.name, value=str(path), remedy=remedy)

    @classmethod
    def of_kind(cls, problem: str, field: str, given: object, remedy: str) -> Self:
        """Of what a caller gave, by its class; never by its content."""
        return cls(problem, field=field, value=type(given).__name__, remedy=remedy)

    def within(self, where: str, remedy: str | None = None) -> Self:
        """The same error with its place before the problem; another remedy where one is given."""
        return type(self)(f"{where}: {self.problem}", self.field, self.value, remedy or self.remedy)

    def __reduce__(self) -> tuple[object, ...]:
        """For worker processes, which send errors back: the message is kept, not made anew."""
        state = vars(self) | {"value": _without_arrays(self.value)}
        return _rebuilt, (type(self), self.args, state)


class ConfigError(SecureFLError):
    """A configuration that cannot be run."""

    code = "config"


class DataError(SecureFLError):
    """A data source that is missing, damaged or not what it should be."""

    code = "data"

    @classmethod
    def of_source(cls, problem: str, path: object, remedy: str) -> Self:
        """Of what `data.sources.path` names."""
        shown = None if path is None else str(path)
        return cls(problem, field="data.sources.path", value=shown, remedy=remedy)


class PartitionError(SecureFLError):
    """Examples cannot be dealt out to the clients as asked."""

    code = "partition"


class ModelError(SecureFLError):
    """A module that does not fit its input, its output or the phase it is used in."""

    code = "model"


class ObjectiveError(SecureFLError):
    """A loss called with tensors or settings it is not defined for."""

    code = "objective"


class TrainingError(SecureFLError):
    """A training step whose loss is not finite, or that has nothing to train on."""

    code = "training"


class PrivacyError(SecureFLError):
    """A release without a valid guarantee, beyond the budget, or outside a mechanism's proof."""

    code = "privacy"


class AuditError(SecureFLError):
    """An audit asked of what it cannot be made from, or a step of its game out of turn."""

    code = "audit"


class SecureSumError(SecureFLError):
    """A message, key or setting that the secure sum refuses."""

    code = "secure-sum"


class RunFolderError(SecureFLError):
    """A run folder that is missing, occupied, damaged or made by another configuration."""

    code = "run-folder"


class FileError(SecureFLError):
    """A file or folder that cannot be read, written or locked."""

    code = "io"


class DeploymentError(SecureFLError):
    """A part of a deployment that does not fit the others: another site's or coordinator's, not
    pinned, run out, or examples that are not of the plan's form.
    """

    code = "deployment"


class DependencyError(SecureFLError):
    """An optional package that is not installed."""

    code = "dependency"


class EngineError(SecureFLError):
    """A program that carries a federation between machines, and does not start, answer or obey."""

    code = "engine"


def need(package: str, extra: str, field: str, value: str | None = None) -> None:
    """Do nothing if a package is installed that one of the project's extras brings.

    Raises:
        DependencyError: it is not; `field`, at this value, is what needs it.
    """
    if find_spec(package) is None:
        problem, remedy = f"needs {package}, not installed", f"pip install 'secure-fl[{extra}]'"
        raise DependencyError(problem, field=field, value=value, remedy=remedy)


def _printable(text: str) -> str:
    """The text with what could steer a terminal spelled out: names may come from anywhere."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )


def _rebuilt(
    kind: type[SecureFLError], args: tuple[object, ...], state: dict[str, object]
) -> SecureFLError:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


def _short(value: object) -> str:
    text = repr(_without_arrays(value))
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


class _Shape:
    """Stands for an array in a message: its values, and how many rows it has, may be secret."""

    def __init__(self, array: object) -> None:
        self._text = (
            f"{type(array).__name__} of one row's shape {tuple(getattr(array, 'shape', ())[1:])}"
        )

    def __repr__(self) -> str:
        return self._text


def _without_arrays(value: object) -> object:
    """The value with a shape in place of each tensor or array."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _Shape(value)
    if isinstance(value, dict):
        return {name: _without_arrays(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_arrays(item) for item in value]
    return tuple(map(_without_arrays, value)) if isinstance(value, tuple) else value
