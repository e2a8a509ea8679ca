"""What a site sends to the coordinator before a federation: its parties' keys, its machine's, and
the form of its examples. One file, signed by every party of the site.

**Guarantee**: every party that a card names has signed all of it; the site holds the private key of
the request for a certificate. Any byte that is changed is refused.

**Assumes**: Ed25519, ECDSA, SHA-256; the fingerprint was compared with the site over another
channel, by voice or on paper.

**Not covered**: whether the examples have the form that the site says; who the site is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from secure_fl.crypto.identities import Identity, Member, check_name
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.strict_json import (
    canonical,
    fields,
    from_base64,
    from_hex,
    malformed,
    parse_object,
    to_base64,
)
from secure_fl.deployment.certificates import MOST_PEM, check_request
from secure_fl.errors import DeploymentError, SecureSumError

MOST_CARD = 1 << 22
"""Bytes of the largest key card that is looked at."""
SERVER = "server"
"""The server's name on the roster; no site has it."""
_PURPOSE, _FORMAT = b"key card", "secure-fl key card 1"
_WHAT, _MOST_NODE, _MOST_AXES, _MOST_NUMBER = "key card", 4096, 8, 1 << 31
_OUTER = {"card": dict, "signatures": dict}
_TYPES = {
    "format": str,
    "site": str,
    "parties": list,
    "request": str,
    "node": str,
    "shape": list,
    "classes": int,
    "examples": dict,
}


@dataclass(frozen=True)
class KeyCard:
    """A site's keys and the form of its examples.

    Attributes:
        site: its name: of its certificate and of its stream.
        cards: of its parties, each signed by itself (`Identity.card`).
        request: for a certificate, PEM.
        node: public key of its Flower node, one line as OpenSSH writes it; empty without Flower.
        shape: of one example; empty where the site has none.
        classes: number of classes; 0 without labels.
        examples: training examples by client, as far as the site tells; a plan needs them only
            where averages are weighted by examples.

    Raises:
        RefusedError: `malformed`: a value out of range; `wrong-role`: a party that is neither
            client nor authority; as of `check_request` and `Member.from_card`.
    """

    site: str
    cards: tuple[bytes, ...]
    request: bytes
    node: bytes = b""
    shape: tuple[int, ...] = ()
    classes: int = 0
    examples: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        members, numbers = self.members, (*self.shape, *self.examples.values())
        names = {member.name for member in members}
        check_name(self.site, "site")
        right = self.site != SERVER and 0 < len(members) == len(names)
        right = right and len(self.shape) <= _MOST_AXES and 0 <= self.classes < _MOST_NUMBER
        right = right and all(type(one) is int and 0 < one < _MOST_NUMBER for one in numbers)
        right = right and set(self.examples) <= {one.name for one in members if _holds(one)}
        if not right:
            raise malformed(_WHAT, "a name or number out of range, or a party named twice")
        for member in members:
            if member.role not in ("client", "authority"):
                remedy = "a site has clients, or the authority"
                where = f"{member.name}, a {member.role}"
                problem = "not a site's party"
                raise RefusedError(Reason.WRONG_ROLE, problem, _WHAT, where, remedy)
        if any(map(_holds, members)) != bool(self.shape):
            raise malformed(_WHAT, "clients have examples of one shape, an authority none")
        check_request(self.request, self.site)
        _check_node(self.node)

    @property
    def members(self) -> tuple[Member, ...]:
        """Its parties, as their cards say."""
        return tuple(map(Member.from_card, self.cards))

    @property
    def parties(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(member.name for member in self.members)

    @property
    def fingerprint(self) -> str:
        """64 hex digits over all of it; what coordinator and site compare."""
        return hashlib.sha256(b"secure-fl key card 1|" + canonical(self._document())).hexdigest()

    def encode(self, identities: Sequence[Identity]) -> bytes:
        """The card as the site sends it.

        Args:
            identities: of all its parties, who sign.

        Raises:
            SecureSumError: other parties than those on the cards.
        """
        if {one.member.fingerprint for one in identities} != {
            one.fingerprint for one in self.members
        }:
            remedy = "give the identity of every party on the card, and of no other"
            raise SecureSumError("other parties sign", _WHAT, self.site, remedy)
        document = self._document()
        data = canonical(document)
        signatures = {one.name: one.sign(_PURPOSE, data).hex() for one in identities}
        return canonical({"card": document, "signatures": signatures})

    def follows(self, known: KeyCard) -> None:
        """Check that this may take the place of a site's card: every party that it had has signed
        it. Raises DeploymentError: it is another site's, or one has not.
        """
        if self.site != known.site or not set(known.cards) <= set(self.cards):
            problem = "not signed by every party that this site had"
            remedy = "a site that lost its keys is revoked first: `secure-fl federate revoke`"
            raise DeploymentError(problem, _WHAT, self.site, remedy)

    @classmethod
    def open(cls, data: bytes) -> KeyCard:
        """Read what a site sent, and check all of it.

        Raises:
            RefusedError: `malformed`; `wrong-signature`; `wrong-key`; `wrong-role`;
                `unknown-client` for a request that is made out to somebody else.
        """
        if len(data) > MOST_CARD:
            raise malformed(_WHAT, f"longer than {MOST_CARD} bytes")
        outer = fields(parse_object(data, _WHAT), _WHAT, _OUTER)
        found = fields(outer["card"], _WHAT, _TYPES)
        if found["format"] != _FORMAT:
            raise malformed(_WHAT, "unknown format")
        try:
            card = cls._read(found)
        except RefusedError:
            raise
        except SecureSumError as error:
            raise malformed(_WHAT, error.problem) from None
        if set(outer["signatures"]) != set(card.parties):
            raise malformed(_WHAT, "not signed by exactly its parties")
        for member in card.members:
            signature = from_hex(outer["signatures"][member.name], "signature", 64)
            member.verify(_PURPOSE, canonical(found), signature)
        return card

    @classmethod
    def of_site(cls, site: str, data: bytes) -> KeyCard:
        """As `open`, of a file that is called after its site. Raises DeploymentError: it is
        another's.
        """
        card = cls.open(data)
        if card.site != site:
            remedy = f"put back {site}'s, or pass it to `secure-fl federate sign`"
            raise DeploymentError(f"is {card.site}'s", f"{site}.card", site, remedy)
        return card

    @classmethod
    def _read(cls, found: dict[str, Any]) -> KeyCard:
        cards = tuple(from_base64(text, "identity card") for text in found["parties"])
        request, node = (from_base64(found[name], name) for name in ("request", "node"))
        more = (tuple(found["shape"]), found["classes"], found["examples"])
        return cls(found["site"], cards, request, node, *more)

    def _document(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "site": self.site,
            "parties": [to_base64(card) for card in self.cards],
            "request": to_base64(self.request),
            "node": to_base64(self.node),
            "shape": list(self.shape),
            "classes": self.classes,
            "examples": dict(self.examples),
        }


def _holds(member: Member) -> bool:
    """Whether this party holds examples."""
    return member.role == "client"


def _check_node(node: bytes) -> None:
    """Refuse what is no public key of a Flower node in its one spelling, with a comment of plain
    letters at most: `malformed` or `wrong-key`.
    """
    if not node:
        return
    try:
        told = node.removesuffix(b"\n").decode("ascii")
        if len(node) > min(_MOST_NODE, MOST_PEM) or not told.isprintable():
            raise ValueError
        key = load_ssh_public_key(node)
        spelt = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        if told.split(" ")[:2] != spelt.decode().split(" "):
            raise ValueError
    except Exception:  # whatever a parser of foreign bytes raises
        raise malformed("node key", "not one public key in OpenSSH's form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        remedy = "make it with ssh-keygen -t ecdsa -b 384"
        raise RefusedError(Reason.WRONG_KEY, "not an ECDSA key", "node key", "not shown", remedy)
