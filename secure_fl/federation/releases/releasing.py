"""One client's releases: named by what they answer, noised from their own stream, made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from secure_fl.federation.asks import Ask
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.budget import digest_of
from secure_fl.privacy.adjacency import PrivacyUnit
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import Release
from secure_fl.privacy.noise import NoiseSource, NoiseStream


@dataclass(frozen=True)
class Releasing:
    """Names, streams and the store of what a client releases of its own examples.

    **Guarantee.** Another ask, phase or round is another name and another stream of noise; the same
    one gets the answer that is stored.

    **Assumes.** The noise source's key is the system's, and SHA-256 digests of asks do not collide.

    **Not covered.** Answers of a run without a folder, which are made once because the source gives
    out no stream twice.
    """

    client: int
    noise: NoiseSource
    box: ReleaseBox

    def key(self, ask: Ask, phase: str, number: int) -> str:
        """Names the answer to this ask for ever; another ask in one round is another release."""
        return f"{phase}/{number}/client-{self.client}/{digest_of(ask)}"

    def release(self, ask: Ask, phase: str, number: int, purpose: str, event: Event) -> Release:
        """What the ledger records before the answer is made."""
        key, unit, whose = self.key(ask, phase, number), PrivacyUnit.EXAMPLE, (self.client,)
        return Release(key, phase, number, purpose, unit, whose, event, basis="declared")

    def stream(self, ask: Ask, phase: str, number: int) -> NoiseStream:
        """The noise of this answer and of no other."""
        purpose = f"{phase}/{digest_of(ask)}"
        return self.noise.stream(client=self.client, round=number, purpose=purpose)

    def once(
        self,
        ask: Ask,
        phase: str,
        number: int,
        make: Callable[[], dict[str, Tensor]],
        *,
        reused: bool = False,
    ) -> dict[str, Tensor]:
        """The stored answer, or `make()`; as `ReleaseBox.once`."""
        return self.box.once(self.key(ask, phase, number), make, reused=reused)
