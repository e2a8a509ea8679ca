"""What may run at a site, by digest: the plan, the roster and the Flower app. `pins.toml`.

Guarantee: what is pinned was shown to whoever joined; another plan, roster or app is refused before
anything of it runs, whoever signed it.
Assumes: the file is written by the site's owner alone.
Not covered: the software installed here, which `study.code` of the policy pins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from secure_fl.config.section import Section
from secure_fl.config_file import read_table
from secure_fl.crypto.roster import Roster
from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.site.settings import text_of
from secure_fl.federation.plan import Plan

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_HEADER = """\
# What may run at this site. `secure-fl site join` writes it, from an invitation that was checked;
# whatever is not named here is refused before anything of it runs.
"""


class Pins(Section):
    """`pins.toml`."""

    plan: Digest | None = None
    """of the plan: `secure-fl site check` shows it"""
    roster: Digest | None = None
    """of the roster"""
    app: Digest | None = None
    """of the Flower app; not set where nobody needs Flower"""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `pins.toml`. Raises ConfigError, naming what is refused."""
        return cls(**read_table(path, "pins.toml", "secure-fl site join"))

    @classmethod
    def of(cls, invitation: Invitation, roster: Roster, plan: Plan) -> Self:
        """What an invitation brings."""
        digests = plan.digest.hex(), roster.digest.hex(), invitation.app or None
        return cls(**dict(zip(("plan", "roster", "app"), digests, strict=True)))

    def text(self) -> str:
        """As a commented file, which `load` reads back."""
        return text_of(self, _HEADER)

    def objection(self, plan: Plan, roster: Roster) -> str | None:
        """Why a plan and a roster may not run here; None where both are pinned."""
        shown = {"plan": (self.plan, plan.digest), "roster": (self.roster, roster.digest)}
        for name, (pinned, digest) in shown.items():
            if pinned != digest.hex():
                there = "no other is" if pinned is None else f"only {pinned[:16]}… is"
                return f"{name} {digest.hex()[:16]}… is not pinned in pins.toml; {there}"
        return None

    def changes(self, other: Pins) -> list[str]:
        """Names of what another one has otherwise."""
        return [name for name in Pins.model_fields if getattr(self, name) != getattr(other, name)]
