"""One client's releases: named by what they answer, noised from a stream of their own, made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from secure_fl.federation.budget import digest_of
from secure_fl.federation.messages import Request
from secure_fl.federation.release_box import ReleaseBox
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import Release
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.privacy.units import PrivacyUnit


@dataclass(frozen=True)
class Releasing:
    """Names, streams and the store of what a client releases of its own examples.

    **Guarantee.** Another request, phase or round is another name and another stream of noise; the same one gets the answer that is stored.
    **Assumes.** The noise source's key is the system's, and SHA-256 digests of requests do not collide.
    **Not covered.** Answers of a run without a folder, which are made once because the source gives out no stream twice.
    """

    client: int
    noise: NoiseSource
    box: ReleaseBox

    def key(self, request: Request, phase: str, number: int) -> str:
        """Names the answer to this request for ever; another request in the same round is another release."""
        return f"{phase}/{number}/client-{self.client}/{digest_of(request)}"

    def release(self, request: Request, phase: str, number: int, purpose: str, event: Event) -> Release:
        """What the ledger records before the answer is made."""
        key = self.key(request, phase, number)
        return Release(key, phase, number, purpose, PrivacyUnit.EXAMPLE, (self.client,), event, basis="declared")

    def stream(self, request: Request, phase: str, number: int) -> NoiseStream:
        """The noise of this answer and of no other."""
        return self.noise.stream(client=self.client, round=number, purpose=f"{phase}/{digest_of(request)}")

    def once(self, request: Request, phase: str, number: int, make: Callable[[], dict[str, Tensor]], *, reused: bool = False) -> dict[str, Tensor]:
        """The stored answer, or `make()`; as `ReleaseBox.once`."""
        return self.box.once(self.key(request, phase, number), make, reused=reused)
