"""The coordinator's folder, and what it makes for the server and the sites.

    coordinator/        stays: the identity that signs, the certificate authority in ca/, what is to
                        be computed (config.toml, study.json), cards/, certificates/ of sites
    server/             copied to the server's machine (`server_folder`)
    invitations/        one file for each site

**Guarantee**: no key of the coordinator leaves its folder; a revision of the roster is signed once,
and none that forgets a revocation (`RosterMemory`). What cannot all be made changes nothing: a
draft is made, and checked, before the first file is written. Every command can be repeated.

**Assumes**: fingerprints of cards were compared over another channel before they are signed.
**Not covered**: a coordinator's folder that is put back to what it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from secure_fl.config import FederationConfig
from secure_fl.config_file import dump_config, load_config
from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.roster_memory import RosterMemory
from secure_fl.crypto.secret_files import write_secret
from secure_fl.deployment.beginning import beginning, check_whole
from secure_fl.deployment.certificates import (
    CA_DAYS,
    MOST_PEM,
    CertificateAuthority,
    check_certificate,
    check_hosts,
    ends,
    good_for,
)
from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.key_card import MOST_CARD, SERVER, KeyCard
from secure_fl.deployment.planning import Draft, Study, check_nodes, check_renewal, plan_of
from secure_fl.deployment.seats import Seat, Seats, seat_of
from secure_fl.deployment.seats_again import cards_in, parties_without, seats_again
from secure_fl.deployment.server_folder import (
    CARD,
    IDENTITY,
    PLAN,
    ROSTER,
    SEATS,
    SETTINGS,
    TLS,
    check_name_of,
    read_settings,
    tls_of,
)
from secure_fl.deployment.settings import Deployment
from secure_fl.deployment.settings_file import app_of, hosts_of, settings_text
from secure_fl.errors import DeploymentError, FileError
from secure_fl.federation.plan import MOST_PLAN, Plan
from secure_fl.files import (
    PUBLIC,
    is_file,
    make_folder,
    read_bytes,
    read_json,
    remove,
    write_atomically,
    write_json,
)
from secure_fl.records import document

COORDINATOR, SERVER_FOLDER, INVITATIONS = "coordinator", "server", "invitations"
_SIGNER, _CONFIG, _STUDY = "coordinator.identity", "config.toml", "study.json"
_CA, _CARDS, _CERTIFICATES, _GONE = "ca", "cards", "certificates", "revoked"
_OWN = {_SIGNER, _CONFIG, _STUDY, _CA, _CARDS, _CERTIFICATES}
_SERVERS = {SETTINGS, CARD, IDENTITY, SEATS, TLS}
"""What is made at first in either folder."""


@dataclass(frozen=True)
class Coordinator:
    """An opened folder of a federation; made by `new` or `open`.

    Attributes:
        path: holds the three folders.
        identity: the coordinator's.
        authority: issues certificates.
    """

    path: Path
    identity: Identity
    authority: CertificateAuthority = field(repr=False)

    @classmethod
    def new(
        cls,
        path: Path,
        settings: Deployment,
        config: FederationConfig,
        study: Study,
        *,
        passphrase: str | None = None,
    ) -> Coordinator:
        """Make folders, keys and the server's certificate; anew, where that was cut short before.

        Args:
            path: made where it is missing.
            settings, config, study: the first; each is in a file afterwards.
            passphrase: encrypts the coordinator's identity and the authority's key.

        Raises:
            DeploymentError: there is something already.
            SecureFLError: a host is none, or a file cannot be written.
        """
        check_hosts(hosts_of(settings))
        own, server = path / COORDINATOR, path / SERVER_FOLDER
        with beginning({own: _OWN, server: _SERVERS}, used=server / ROSTER):
            for each in (own / _CARDS, own / _CERTIFICATES, server / TLS, path / INVITATIONS):
                make_folder(each)
            secret, days = passphrase, max(CA_DAYS, study.days)
            authority = CertificateAuthority.new(
                own / _CA, settings.name, passphrase=secret, days=days
            )
            identity = Identity.generate(COORDINATOR, "coordinator")
            identity.save(own / _SIGNER, passphrase=secret)
            write_json(own / _STUDY, document(study))
            write_atomically(own / _CONFIG, dump_config(config))
            write_atomically(server / SETTINGS, settings_text(settings), mode=PUBLIC)
            Seats(server / SEATS).write({})
            Identity.generate(SERVER, "server").save(server / IDENTITY)
            write_atomically(server / CARD, identity.card(), mode=PUBLIC)
            made = cls(path, identity, authority)
            made.renew_server()
        return made

    @classmethod
    def open(cls, path: Path, *, passphrase: str | None = None) -> Coordinator:
        """The federation in this folder. Raises SecureSumError: no such identity, or the passphrase
        is wrong or missing; RefusedError: a damaged authority; DeploymentError: `new` did not end.
        """
        own = path / COORDINATOR
        check_whole(own, used=path / SERVER_FOLDER / ROSTER)
        identity = Identity.load(own / _SIGNER, passphrase=passphrase)
        return cls(path, identity, CertificateAuthority.open(own / _CA, passphrase=passphrase))

    @property
    def own(self) -> Path:
        """What stays here; hold it (`files.held`) while it is changed."""
        return self.path / COORDINATOR

    @property
    def server(self) -> Path:
        """What is copied to the server's machine."""
        return self.path / SERVER_FOLDER

    @property
    def settings(self) -> Deployment:
        """`federation.toml`, as it is now. Raises ConfigError."""
        return read_settings(self.server)

    @property
    def config(self) -> FederationConfig:
        """What is to be computed, as the file says now. Raises ConfigError."""
        return load_config(self.own / _CONFIG)

    @property
    def seats(self) -> Seats:
        """Who is let in at the server; where the file is lost or damaged, by cards and certificates
        that are kept here.
        """
        return Seats(self.server / SEATS, self._seats_again)

    @property
    def study(self) -> Study:
        """Days, and who gets the models. Raises RunFolderError: damaged."""
        remedy = "put back the file that `secure-fl federate init` wrote"
        return read_json(self.own / _STUDY, Study, remedy)

    def cards(self) -> dict[str, bytes]:
        """Of all sites that take part, by name, as they sent them. Raises FileError."""
        return cards_in(self.own / _CARDS)

    def read(self) -> None:
        """Read all that a draft is made of. Raises SecureFLError: it cannot be read."""
        _ = self.settings, self.config, self.study, self.seats.read(), self._roster()
        _ = [KeyCard.of_site(site, data) for site, data in self.cards().items()]

    def in_force(self) -> Plan | None:
        """The newest plan that was signed; None where there is none that fits the roster: signing
        was cut short, or the file is damaged.
        """
        path, roster = self.server / PLAN, self._roster()
        if not is_file(path):
            return None
        try:
            return Plan.open(read_bytes(path, most=2 * MOST_PLAN), roster)
        except RefusedError:
            return None

    def invitation_of(self, site: str) -> Path:
        """Where the file for a site lies."""
        return self.path / INVITATIONS / f"{site}.invitation"

    def draft(self, cards: Iterable[bytes] = (), *, again: bool = False) -> Draft:
        """The next roster and plan with these sites' cards; nothing is written.

        Args:
            cards: of new sites, or newer ones of known sites, which must still have every party
                that they had; none, where a site was revoked or a setting changed.
            again: the next revision though nobody is new, for another federation of the same.

        Raises:
            DeploymentError: a known site's card is gone, another's, or lacks its parties; sites do
                not fit each other.
            RefusedError: a card that is not right, or that is revoked.
            SecureSumError: a name or key is taken.
            ConfigError: too few clients, a host that is none, or another rule.
        """
        check_hosts(hosts_of(self.settings))
        known = self.cards()
        for data in cards:
            card = KeyCard.open(data)
            if card.site in known:
                card.follows(KeyCard.open(known[card.site]))
            known[card.site] = data
        seats = self.seats.read()
        before = self._roster()
        there = {member.fingerprint for member in before.members}
        opened = [KeyCard.of_site(site, known[site]) for site in sorted(known)]
        gone = sorted(name for name in seats.keys() - known if not seats[name].revoked)
        if gone := gone or parties_without(before, opened):
            remedy = "pass the key card that the site sent again, or `secure-fl federate revoke` it"
            raise DeploymentError("cards of sites are gone", _CARDS, gone, remedy)
        everyone = (card for each in opened for card in each.cards)
        new = [card for card in everyone if Member.from_card(card).fingerprint not in there]
        roster = before.add(new) if new or again else before
        if self.settings.launch == "flower":
            check_nodes(opened)
        return Draft(roster, plan_of(self.config, roster, opened, self.study), known)

    def publish(self, draft: Draft) -> list[Path]:
        """Sign a draft, and write all that follows for the server and for the sites.

        Args:
            draft: of this folder.

        Returns:
            The invitations to be sent.

        Raises:
            SecureFLError: a file cannot be written; repeat it.
        """
        memory = RosterMemory(self.own / _SIGNER)
        memory.check(draft.roster)  # of no revision two are signed
        opened = {site: KeyCard.of_site(site, data) for site, data in draft.cards.items()}
        known, seats = self.cards(), self.seats.read()
        for site, card in opened.items():
            if known.get(site) != draft.cards[site] or self._certified(site) is None:
                self._issue(site, card.request)
                write_atomically(self.own / _CARDS / f"{site}.card", draft.cards[site])
            seats[site] = seat_of(card, read_bytes(self._certificate_of(site)), seats.get(site))
        if not good_for(tls_of(self.server).certificate, hosts_of(self.settings)):
            self.renew_server()
        roster = draft.roster.sign(self.identity)
        plan = draft.plan.sign(self.identity, draft.roster)
        self.seats.write(seats)
        write_atomically(self.server / ROSTER, roster, mode=PUBLIC)
        write_atomically(self.server / PLAN, plan, mode=PUBLIC)
        memory.accept(draft.roster)
        return [self._invite(card, roster, plan) for card in opened.values()]

    def revoke(self, site: str) -> Roster:
        """Let a site in no more, and sign a roster without its parties; the server has no plan
        until one is published that fits it. Its key card may be lost.

        Args:
            site: that has a seat, or a key card.

        Raises:
            DeploymentError: no such site.
            SecureFLError: a file cannot be written; repeat it.
        """
        roster, seat = self._roster(), self.seats.read().get(site)
        card_file = self.own / _CARDS / f"{site}.card"
        parties = self._card(site).parties if seat is None else seat.parties
        left = set(parties) & {member.name for member in roster.members}
        if seat is not None and seat.revoked and not left:
            self._card(site)  # else it was revoked, to the end
        for name in sorted(left):
            roster = roster.revoke(name)
        if seat is not None:
            self.seats.revoke(site)
        memory = RosterMemory(self.own / _SIGNER)
        memory.check(roster)
        remove(self.server / PLAN)
        write_atomically(self.server / ROSTER, roster.sign(self.identity), mode=PUBLIC)
        memory.accept(roster)
        make_folder(self.own / _GONE)
        if is_file(card_file):  # it may be lost; who is let in does not hang on it
            data = read_bytes(card_file, most=MOST_CARD)
            write_atomically(self.own / _GONE / card_file.name, data)
        remove(self.invitation_of(site))
        remove(card_file)
        return roster

    def renew_server(self) -> datetime:
        """Give the server a new key and certificate; when that ends. A server that runs takes them
        up by itself.
        """
        pem, key = self.authority.server(hosts_of(self.settings), days=self.study.days)
        tls = tls_of(self.server)
        write_atomically(tls.authority, self.authority.pem, mode=PUBLIC)
        write_secret(tls.key, key, overwrite=True)
        write_atomically(tls.certificate, pem, mode=PUBLIC)
        return ends(pem)

    def renew_site(self, site: str, request: bytes, *, only: bool = False) -> Path:
        """Give a site a certificate for a new request; its new invitation.

        Args:
            site: known by its key card.
            request: PEM, or a key card of the same parties with a new one.
            only: refuse the earlier certificate at once; else it is good until it ends.

        Raises:
            DeploymentError: no such site, nothing was signed for it, or a card of other parties.
            RefusedError: a request that is not right.
        """
        card = self._card(site)
        seat = self.seats.read().get(site)
        if seat is None or seat.revoked or not self.in_force():
            remedy = "sign its card: `secure-fl federate sign DIR CARD`"
            raise DeploymentError("nothing is signed for it", "site", site, remedy)
        if not request.startswith(b"-----BEGIN"):
            newer = KeyCard.open(request)
            newer.follows(card)
            check_renewal(newer, card, self.cards() if self.settings.launch == "flower" else {})
            write_atomically(self.own / _CARDS / f"{site}.card", request)
            card, request = newer, newer.request
        pem = self._issue(site, request)
        self.seats.write(self.seats.read() | {site: seat_of(card, pem, None if only else seat)})
        roster, plan = (read_bytes(self.server / name) for name in (ROSTER, PLAN))
        return self._invite(card, roster, plan)

    def _roster(self) -> Roster:
        """In force; of nobody but the server and the coordinator before the first was signed."""
        path = self.server / ROSTER
        if is_file(path):
            memory = RosterMemory(self.own / _SIGNER)
            roster = memory.open(read_bytes(path), self.identity.member)
            check_name_of(self.settings, roster)
            return roster
        server = Identity.load(self.server / IDENTITY).member
        rounds = self.config.security.rotation_rounds
        return Roster(self.settings.name, (server, self.identity.member), rounds)

    def _card(self, site: str) -> KeyCard:
        data = self.cards().get(site)
        if data is None:
            raise DeploymentError("no such site", "site", site, f"one of {sorted(self.cards())}")
        return KeyCard.of_site(site, data)

    def _certificate_of(self, site: str) -> Path:
        return self.own / _CERTIFICATES / f"{site}.pem"

    def _certified(self, site: str) -> bytes | None:
        """Its certificate, if there is a whole one."""
        try:
            pem = read_bytes(self._certificate_of(site), most=MOST_PEM)
            check_certificate(pem, self.authority.pem, site)
        except (FileError, RefusedError):
            return None
        return pem

    def _seats_again(self) -> dict[str, Seat]:
        return seats_again(self.cards(), cards_in(self.own / _GONE), self._certified)

    def _issue(self, site: str, request: bytes) -> bytes:
        """A new certificate of a site."""
        pem = self.authority.site(site, request, days=self.study.days)
        write_atomically(self._certificate_of(site), pem)
        return pem

    def _invite(self, card: KeyCard, roster: bytes, plan: bytes) -> Path:
        settings = self.settings
        invitation = Invitation(
            card.site,
            card.parties,
            settings,
            self.identity.card(),
            roster,
            plan,
            self.authority.pem,
            read_bytes(self._certificate_of(card.site)),
            app_of(settings),
        )
        path = self.invitation_of(card.site)
        write_atomically(path, invitation.sign(self.identity), mode=PUBLIC)
        return path
