"""What is audited: a finished run by its folder, or one that is yet to come by its settings; or one
party's folder, of a federation in which nobody has everybody's examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_fl.config import FederationConfig
from secure_fl.config_file import load_config
from secure_fl.data.partitions import ClientData
from secure_fl.data.views import Augmentation
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.summary import Summary
from secure_fl.federation.verify.settings import is_partys, planned_in
from secure_fl.paths import path_of

if TYPE_CHECKING:
    from torch import nn

    from secure_fl.run import Federation


@dataclass(frozen=True)
class Subject:
    """A run, and what an auditor has of it.

    Attributes:
        config: its settings.
        folder: of the finished run, or the party's; None where only settings are audited.
        party: whether the folder is one party's of a deployment: then there is its record alone.
        data, encoder, augment: as `Federation` takes them, where the run had the caller's own.
    """

    config: FederationConfig
    folder: Path | None = None
    data: Any = field(default=None, repr=False)
    encoder: nn.Module | Callable[[int], nn.Module] | None = None
    augment: Augmentation | None = None
    party: bool = False

    @classmethod
    def of(cls, path: Path | str, **own: Any) -> Subject:
        """From a run's folder, from one party's, or from a configuration's file.

        Args:
            path: of any of these; of a party's folder the settings are the signed plan's.
            own: `data`, `encoder` and `augment`, where the run had the caller's own.

        Raises:
            RunFolderError, ConfigError: none of these, or damaged.
        """
        place = path_of(path, "path")
        if place.is_dir() and is_partys(place):
            return cls(planned_in(place), place, party=True)
        if place.is_dir():
            return cls(RunFolder.open(place).read_config(), place, **own)
        config = load_config(place, own_encoder=own.get("encoder") is not None)
        return cls(config, None, **own)

    @cached_property
    def federation(self) -> Federation:
        """The run as it was set up: the same clients, examples and models. Nothing is trained, and
        nothing is written.

        Raises:
            AuditError: the examples, or the encoder, are not those that the run's record tells of.
            SecureFLError: as `Federation` raises; the data may not be at hand.
        """
        from secure_fl.audit.same_run import check_same
        from secure_fl.run import Federation

        made = Federation(self.config, data=self.data, encoder=self.encoder, augment=self.augment)
        if self.folder is not None:
            check_same(self.folder, made.clients, own_encoder=self.encoder is not None)
        return made

    @property
    def clients(self) -> list[ClientData]:
        """All clients' examples: an auditor of a simulation has them."""
        return self.federation.clients

    @property
    def factory(self) -> Factory:
        """What makes the run's models, views, mechanisms and plans."""
        return self.federation.factory

    @cached_property
    def summary(self) -> Summary | None:
        """What the run says of itself; None before it has ended."""
        if self.folder is None or self.party:
            return None
        return RunFolder.open(self.folder).read_summary()

    @property
    def ledger(self) -> Path | None:
        """The file of all charges; None where there is none."""
        path = None if self.folder is None else self.folder / "ledger.json"
        return path if path is not None and path.is_file() else None
