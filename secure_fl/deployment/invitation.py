"""What the coordinator sends back to a site: everything that it needs to take part, in one file
that the coordinator signed.

**Guarantee**: roster and plan are this coordinator's and fit each other; the certificate was issued
to this site by the authority in the file; every party named is on the roster. Any byte that is
changed is refused.

**Assumes**: the coordinator's card is known from elsewhere, or its fingerprint is compared.

**Not covered**: whether the plan is worth accepting (the site's own policy judges that); an older
invitation in place of a newer one (the site's roster memory refuses older rosters).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from secure_fl.crypto.identities import Identity, Member, check_name
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.strict_json import (
    canonical,
    fields,
    from_base64,
    from_hex,
    malformed,
    parse_object,
    to_base64,
)
from secure_fl.deployment.certificates import check_certificate
from secure_fl.deployment.settings import Deployment
from secure_fl.errors import ConfigError, SecureSumError
from secure_fl.federation.plan import Plan

MOST_INVITATION = 1 << 25
"""Bytes of the largest invitation that is looked at."""
_PURPOSE, _FORMAT, _WHAT = b"invitation", "secure-fl invitation 1", "invitation"
_FILES = ("coordinator", "roster", "plan", "authority", "certificate")
_TYPES = {
    "format": str,
    "site": str,
    "parties": list,
    "settings": dict,
    "app": str,
    **dict.fromkeys(_FILES, str),
}


@dataclass(frozen=True)
class Invitation:
    """What a site needs to take part.

    Attributes:
        site: its name.
        parties: its parties, by their names on the roster.
        settings: where the server is, and how it is reached.
        coordinator: its signed identity card.
        roster: as the coordinator signed it.
        plan: as the coordinator signed it.
        authority: the federation's certificate authority, PEM.
        certificate: the site's, PEM.
        app: SHA-256 of the Flower app in hex; empty without Flower.
    """

    site: str
    parties: tuple[str, ...]
    settings: Deployment
    coordinator: bytes = field(repr=False)
    roster: bytes = field(repr=False)
    plan: bytes = field(repr=False)
    authority: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    app: str = ""

    def sign(self, coordinator: Identity) -> bytes:
        """The invitation as the coordinator sends it."""
        document = self._document()
        signature = coordinator.sign(_PURPOSE, canonical(document)).hex()
        return canonical({"invitation": document, "signature": signature})

    @classmethod
    def open(cls, data: bytes, coordinator: Member | None = None) -> Invitation:
        """Read what the coordinator sent, and check all of it.

        Args:
            coordinator: known from elsewhere; where none is given the card in the invitation is
                taken, and its fingerprint is to be compared with the coordinator's.

        Raises:
            RefusedError: `malformed`; `wrong-signature`; `wrong-key`: another coordinator;
                `wrong-roster`; `wrong-federation`; `unknown-client`.
        """
        if len(data) > MOST_INVITATION:
            raise malformed(_WHAT, f"longer than {MOST_INVITATION} bytes")
        types = {"invitation": dict, "signature": str}
        outer = fields(parse_object(data, _WHAT), _WHAT, types)
        found = fields(outer["invitation"], _WHAT, _TYPES)
        signer = Member.from_card(from_base64(found["coordinator"], "coordinator"))
        if coordinator is not None and signer != coordinator:
            remedy = "ask the coordinator whether its key has changed"
            problem = "signed by another coordinator"
            raise RefusedError(Reason.WRONG_KEY, problem, _WHAT, signer.fingerprint, remedy)
        signer.verify(_PURPOSE, canonical(found), from_hex(outer["signature"], "signature", 64))
        if found["format"] != _FORMAT or signer.role != "coordinator":
            raise malformed(_WHAT, "unknown format, or not signed by a coordinator")
        try:
            invitation = cls._read(found)
            invitation._check(signer)
        except RefusedError:
            raise
        except (SecureSumError, ConfigError) as error:
            raise malformed(_WHAT, error.problem) from None
        return invitation

    @classmethod
    def _read(cls, found: dict[str, Any]) -> Invitation:
        settings = Deployment(**found["settings"])
        if settings.model_dump(mode="json") != found["settings"]:
            raise malformed(_WHAT, "settings in another spelling")
        if found["app"]:
            from_hex(found["app"], "app", 32)
        files = {name: from_base64(found[name], name) for name in _FILES}
        site, parties = check_name(found["site"], "site"), tuple(found["parties"])
        return cls(site, parties, settings, app=found["app"], **files)

    def _check(self, coordinator: Member) -> None:
        """What must hold between its parts."""
        roster = Roster.open(self.roster, coordinator)
        Plan.open(self.plan, roster)
        if roster.federation != self.settings.name:
            problem, remedy = "a roster of another federation", "ask the coordinator for another"
            raise RefusedError(Reason.WRONG_FEDERATION, problem, _WHAT, roster.federation, remedy)
        people = (*roster.names("client"), *roster.names("authority"))
        if not self.parties or not all(isinstance(one, str) for one in self.parties):
            raise malformed(_WHAT, "no parties")
        if len(set(self.parties)) != len(self.parties) or not set(self.parties) <= set(people):
            remedy = "ask the coordinator for another"
            problem = "parties that are not on the roster"
            raise RefusedError(Reason.UNKNOWN_CLIENT, problem, _WHAT, self.site, remedy)
        check_certificate(self.certificate, self.authority, self.site)

    def _document(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "site": self.site,
            "parties": list(self.parties),
            "settings": self.settings.model_dump(mode="json"),
            "app": self.app,
            **{name: to_base64(getattr(self, name)) for name in _FILES},
        }
