"""The configurations of a run: `config.toml`, which also names the run, and those that it had
before it was made longer, as `configs/1.toml` and so on.

A file begins with the run's name and the digest of what the run was made with, and ends with a line
of its own, since settings that were cut off would read as their defaults.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from secure_fl.config import FederationConfig
from secure_fl.config_file import dump_config, load_config
from secure_fl.errors import RunFolderError
from secure_fl.files import listed, make_folder, read_bytes, write_atomically

_FIRST = re.compile(rb"# run ([0-9a-f]{32})\n# made with ([0-9a-f]*)\n")
_LAST = b"\n# end\n"


class Ends(NamedTuple):
    """What the first lines of a configuration say, where its last line is there too.

    Attributes:
        run: the run's name in the user's state directory.
        digest: of what the run was made with; hex.
    """

    run: str
    digest: str


class RunConfigs:
    """Reads and writes the configurations in one run's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._own, self._kept = folder, folder / "config.toml", folder / "configs"

    def write(self, config: FederationConfig, run: str, digest: str) -> None:
        """Write `config.toml`, whole or not at all."""
        first = f"# run {run}\n# made with {digest}\n"
        write_atomically(self._own, f"{first}{dump_config(config)}{_LAST.decode()}")

    def read(self, overrides: Sequence[str] = ()) -> FederationConfig:
        """The run's own configuration, with `a.b=c` overrides. Raises RunFolderError: the file lost
        its first or last line; ConfigError: it is damaged otherwise.
        """
        self.ends()
        return load_config(self._own, overrides)

    def replace(self, config: FederationConfig, digest: str) -> None:
        """Keep the configuration as `configs/N.toml`, and put another in its place under the same
        name of the run.
        """
        run, number = self.ends().run, len(self._earlier()) + 1
        make_folder(self._kept)
        write_atomically(self._kept / f"{number}.toml", read_bytes(self._own))
        self.write(config, run, digest)

    def all(self) -> list[tuple[FederationConfig, str]]:
        """Every configuration, oldest first and the run's own last, each with its digest. Raises
        RunFolderError: one is damaged or names another run; ConfigError: likewise.
        """
        found, own = [], self.ends().run
        for path in [*self._earlier(), self._own]:
            ends = self.ends(path)
            if ends.run != own:
                remedy = "put back the files that the run wrote under configs/"
                raise RunFolderError("names another run", path.name, str(self._folder), remedy)
            found.append((load_config(path), ends.digest))
        return found

    def ends(self, path: Path | None = None) -> Ends:
        """What the first lines of `config.toml`, or of an earlier one, say. Raises RunFolderError:
        the first or the last line is not there any more.
        """
        data = read_bytes(path or self._own)
        found = _FIRST.match(data)
        if found is None or not data.endswith(_LAST):
            problem = "lost its first or last line"
            remedy = (
                "restore the file that the run wrote: its first lines name it, its last ends it"
            )
            raise RunFolderError(problem, "config.toml", str(self._folder), remedy)
        return Ends(found[1].decode("ascii"), found[2].decode("ascii"))

    def _earlier(self) -> list[Path]:
        """The configurations of before, oldest first."""
        files = [path for path in listed(self._kept) if path.suffix == ".toml"]
        numbered = [path for path in files if path.stem.isdecimal()]
        return sorted(numbered, key=lambda path: int(path.stem))
