"""Prints the lowest version of every package that pyproject.toml takes, as constraints for pip:
`make lowest` installs and tests them.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = ("data", "images", "report", "tables")


def lowest(text: str) -> list[str]:
    """`name==version` for each requirement of the package and of the extras that the quick
    tests need.
    """
    project = tomllib.loads(text)["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in EXTRAS for each in project["optional-dependencies"][extra]),
    ]
    found = [
        re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)(,.*|;.*)?", each.replace(" ", ""))
        for each in wanted
    ]
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    print("\n".join(lowest((Path(__file__).parents[1] / "pyproject.toml").read_text())))
