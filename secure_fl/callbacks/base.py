"""`Callback`: hooks into a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secure_fl.federation.run_folder.metrics import RoundRecord
    from secure_fl.finished.result import Result


class Callback:
    """Hooks into a run; override what you need. Exceptions raised here end the run, which can then
    be resumed.
    """

    def on_phase(self, name: str, rounds: int, done: int) -> None:
        """A phase begins, or goes on after `done` rounds."""

    def on_reply(self, client: str) -> None:
        """The client of this name has replied. Not called where the record leaves the
        experimenter's fields out.
        """

    def on_client(self, done: int, total: int) -> None:
        """A client of the round under way has replied."""

    def on_round(self, record: RoundRecord) -> None:
        """A round has ended and is recorded; the record holds what the manifest lets be written,
        and nothing else.
        """

    def on_end(self, result: Result) -> None:
        """The run has ended."""
