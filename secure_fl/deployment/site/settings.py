"""What a site says of itself and of its data: `site.toml`. Nothing here changes what is computed;
that is in the plan, which the coordinator signs and the site's policy judges.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secure_fl.config import SourceConfig
from secure_fl.config.data_tables import PACKAGED
from secure_fl.config.section import Section, require
from secure_fl.config_file import commented, read_table

_WIDTH = 100
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_HEADER = """\
# A site of a federation. What is computed is in the plan, which the site's policy (policy.toml)
# judges; here is where this site's own examples are, and how this machine takes part.
"""


class SiteData(Section):
    """This site's own examples; they never leave it."""

    table = "data"
    sources: tuple[SourceConfig, ...] = ()
    """where the examples are: relative paths begin in this folder. Columns (features) are those of
    the plan, in its order, unless they are named here because they are called otherwise
    """

    @model_validator(mode="after")
    def _own(self) -> Self:
        """Refuse what is nobody's own, and what a run would draw among all clients."""
        require(
            rule
            for number, source in enumerate(self.sources)
            for rule in (
                (source.name not in PACKAGED, f"data.sources.{number}.name", source.name,
                 "a set that everybody has is no site's own",
                 "name a file of this site: npz | npy | images | csv | parquet"),
                (source.limit is None, f"data.sources.{number}.limit", source.limit,
                 "a site takes part with all examples of its file",
                 "leave it out, and make a file of the examples that take part"),
            )
        )  # fmt: skip
        return self


class SiteLaunch(Section):
    """How this machine takes part."""

    table = "launch"
    patience: Annotated[float, Field(gt=0, le=604800)] | None = None
    """seconds without a way to the server after which the site gives up (exit code 4); it goes on
    trying for ever where this is not set
    """


class SiteLog(Section):
    """What this site's process writes of its course: names, phases, sizes and times only."""

    table = "log"
    json_lines: bool = False
    """a JSON object a line, for collectors; else lines for people"""
    file: str | None = None
    """file beside this one; standard error where it is not set"""


class SiteSettings(Section):
    """`site.toml`."""

    name: str = Field(pattern=NAME)
    """of this site, in its certificate"""
    role: Literal["data", "authority"] = "data"
    """data: has examples | authority: holds the encryption key, has no examples"""
    client: str | None = Field(None, pattern=NAME)
    """the one client that holds all examples of this site; where it is not set, the client column
    of the data says who holds what, and each of them is a client, SITE.VALUE on the roster
    """
    data: SiteData = SiteData()
    launch: SiteLaunch = SiteLaunch()
    log: SiteLog = SiteLog()

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        found = len(self.data.sources)
        require([
            (self.role == "authority" or found > 0, "data.sources", found, "a site without data",
             'name a file in [[data.sources]], or set role = "authority"'),
            (self.role == "data" or found == 0, "data.sources", found,
             "whoever holds the key has no examples", 'leave them out, or set role = "data"'),
        ])  # fmt: skip
        return self

    @classmethod
    def load(cls, path: Path) -> SiteSettings:
        """Read `site.toml`. Raises ConfigError, naming what is refused."""
        return cls(**read_table(path, "site.toml", "secure-fl site init"))

    def text(self) -> str:
        """As a commented file, which `load` reads back."""
        return text_of(self, _HEADER)


def text_of(section: Section, header: str) -> str:
    """A commented TOML file of a section, no line of a comment longer than a page is wide."""
    lines = (
        textwrap.fill(line, _WIDTH, subsequent_indent="# ", break_on_hyphens=False)
        if line.startswith("# ")
        else line
        for line in commented(section)
    )
    return "\n".join([header, *lines]).rstrip() + "\n"
