"""Who may open a stream to the server: `seats.json` in the server's folder, read anew each time.

**Guarantee**: a machine is let in only with a certificate that its seat names; a seat that is
revoked, missing or not to be read lets nobody in.

**Assumes**: who may write the server's folder may decide this.

**Not covered**: what a machine says once it is in; its parties sign that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from secure_fl.crypto.strict_json import canonical
from secure_fl.deployment.certificates import digest_of, ends
from secure_fl.deployment.key_card import KeyCard
from secure_fl.errors import RunFolderError, SecureFLError
from secure_fl.files import is_file, read_json, write_json
from secure_fl.records import Record, document


@dataclass(frozen=True)
class Seat(Record):
    """One site at the server.

    Attributes:
        parties: that may speak on its stream.
        certificates: SHA-256 of each that is good, in hex, the newest first.
        node_key: public key of its Flower node, one line as OpenSSH writes it; empty without.
        ends: when its newest certificate ends, in UTC, as `2026-01-31`.
        revoked: whether it is let in no more.
    """

    parties: tuple[str, ...]
    certificates: tuple[str, ...]
    node_key: str = ""
    ends: str = ""
    revoked: bool = False

    @property
    def node(self) -> bytes:
        """Public key of its Flower node."""
        return self.node_key.encode()

    @property
    def certificate(self) -> str:
        """The newest."""
        return self.certificates[0] if self.certificates else ""


@dataclass(frozen=True)
class _File(Record):
    format: Literal["secure-fl seats 2"]
    check: str
    seats: dict[str, Seat] = field(default_factory=dict)


def _check(seats: Mapping[str, Seat]) -> str:
    """SHA-256 of what the file says, in hex: it finds what was torn or mistyped, and is no secret
    from who may write the folder.
    """
    return hashlib.sha256(canonical(document(seats))).hexdigest()


def seat_of(card: KeyCard, certificate: bytes, before: Seat | None) -> Seat:
    """A site's seat with this certificate, PEM; the one before stays good where there was one."""
    digest = digest_of(certificate)
    earlier = before.certificates if before is not None and not before.revoked else ()
    certificates = (digest, *[each for each in earlier if each != digest][:1])
    node, until = card.node.decode().strip(), str(ends(certificate).date())
    return Seat(card.parties, certificates, node, until)


class Seats:
    """The file. Its methods raise RunFolderError: it is damaged; FileError: it cannot be read.

    Args:
        path: of the file.
        again: what is to be in it, by what is kept elsewhere, where it is lost or damaged.
    """

    def __init__(self, path: Path, again: Callable[[], dict[str, Seat]] | None = None) -> None:
        self.path, self._again = path, again
        self._away = frozenset[str]()

    def read(self) -> dict[str, Seat]:
        """All seats by site."""
        if self._again is None:
            return self._read()
        try:
            return self._read() if is_file(self.path) else self._again()
        except RunFolderError:
            return self._again()

    def _read(self) -> dict[str, Seat]:
        remedy = "`secure-fl federate sign` in the coordinator's folder writes it; copy it here"
        found = read_json(self.path, _File, remedy)
        if found.check != _check(found.seats):
            raise RunFolderError.of_file("damaged, or edited by hand", self.path, remedy)
        return found.seats

    def write(self, seats: Mapping[str, Seat]) -> None:
        """In place of what is there."""
        write_json(self.path, document(_File("secure-fl seats 2", _check(seats), dict(seats))))

    def revoke(self, site: str) -> None:
        """Let a site in no more."""
        seats = self.read()
        self.write(seats | {site: replace(seats[site], revoked=True)})

    def away(self) -> frozenset[str]:
        """Parties whose site is let in no more. Nothing is raised: where the file cannot be read
        (it is being copied, say) those of the last time that it could; at first nobody.
        """
        with suppress(SecureFLError):
            seats = self.read().values()
            self._away = frozenset(name for seat in seats if seat.revoked for name in seat.parties)
        return self._away

    def admitted(self, name: str, certificate: str) -> Sequence[str] | None:
        """The parties that may speak on the stream of a machine; None where it is not let in.
        Nothing is raised: a file that cannot be read lets nobody in.

        Args:
            name: common name of its certificate.
            certificate: SHA-256 of that, in hex.
        """
        try:
            seat = self.read().get(name)
        except SecureFLError:
            return None
        if seat is None or seat.revoked or certificate not in seat.certificates:
            return None
        return seat.parties
