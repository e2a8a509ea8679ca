"""A small federation whose parties have folders, over drivers, watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from federation.parties.kills import Federation, Kind
from federation.parties.toy_federation import Toy
from operations.wires import Net, run

from secure_fl.operations.view import Observer
from secure_fl.operations.watching import Watching, watch_of

ROUNDS = 3


class Watched:
    """Four clients at two sites, and the server; `server` and `site` watch it and the first site.

    Args:
        folder: of all parties.
        server, site: are told what is seen there.
    """

    def __init__(
        self, folder: Path, server: Sequence[Observer] = (), site: Sequence[Observer] = ()
    ) -> None:
        self.made = Federation(folder, Kind("masked", program=Toy(4, ROUNDS)), noise=True)
        self.server = watch_of(folder / "server", *server)
        own = {name: folder / name / "ledger.json" for name in self.made.names[:2]}
        self.site = watch_of(None, *site, role="site", name="north")
        self.site.follow(folder / self.made.names[0], own)

    def run(self, before: Callable[[Net], None] = lambda _: None) -> None:
        """To the end."""
        server = self.made.server()
        clients = [self.made.client(name) for name in self.made.names]
        machines = {"server": [server], "north": clients[:2], "south": clients[2:]}
        try:
            run(machines, {"server": self.server, "north": self.site}, before=before)
        finally:
            for party in (server, *clients):
                party.folder.close()


def rounds(watch: Watching) -> list[tuple[int, str]]:
    """Attempts that were seen, and what came of them."""
    return [(course.number, course.outcome) for course in watch.view.courses]
