"""Names of a package that are imported when used (PEP 562), so that importing it costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module


def lazily(
    package: str, homes: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package.

    Type checkers do not see through these: the package repeats the imports under `TYPE_CHECKING`.

    Args:
        package: its `__name__`.
        homes: module within it -> names that come from there.

    Raises:
        AttributeError: from `__getattr__`, for a name that no module is given for.
    """
    home = {name: f"{package}.{module}" for module, names in homes.items() for name in names}

    def resolve(name: str) -> object:
        """The object of this name, its module imported now."""
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home[name]), name)

    def listed() -> list[str]:
        """What `dir` shows: the public names, and the modules that have been imported."""
        return sorted({*home, *vars(import_module(package))})

    return resolve, listed, sorted(home)
