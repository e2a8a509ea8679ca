"""`secure-fl federate`: the coordinator's side, and the server's, of a federation of several
machines.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_fl.cli.common import command_group
from secure_fl.cli.console import Sheet, err, out
from secure_fl.cli.exits import EXITS, refusing
from secure_fl.cli.federate_run import close, resume, start, status, stop
from secure_fl.cli.keys import Passphrase, passphrase_of
from secure_fl.quantities import counted

if TYPE_CHECKING:
    from secure_fl.deployment.coordinator import Coordinator
    from secure_fl.deployment.key_card import KeyCard
    from secure_fl.deployment.planning import Draft
    from secure_fl.federation.plan import Plan

_HELP = f"""\
A federation of several machines: keys, certificates and the signed plan; its server.

\b
  secure-fl federate init fl --name trial --host fl.example.org --config my.toml
                                       makes fl/coordinator (stays here) and fl/server
  ... each site sends its key card ...
  secure-fl federate sign fl north.card east.card south.card
                                       signs roster and plan, writes fl/invitations/SITE.invitation
  ... fl/server is copied to the server's machine, each invitation is sent to its site ...
  secure-fl federate start fl          runs the server to the end; `fl` holds a folder `server`
  secure-fl federate status fl         how far it is, who is there, when certificates end

fl/coordinator never leaves the coordinator's machine: whoever has it can sign for the federation.

{EXITS}"""

federate_app = command_group(_HELP)
_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The federation's folder.")]


_Name = Annotated[str, typer.Option(help="Of the federation: on roster and certificates.")]
_Host = Annotated[str, typer.Option(help="Name or address by which sites reach the server.")]
_Config = Annotated[Path, typer.Option(help="What is to be computed: a configuration in TOML.")]
_Days = Annotated[int, typer.Option(help="How long certificates of machines are good.")]
_Launch = Annotated[
    str, typer.Option(help="flower: its SuperLink starts runs | direct: sites dial the server.")
]
_Transport = Annotated[
    str, typer.Option(help="session: one stream a site | messages: by Flower's port only.")
]
_Port = Annotated[int, typer.Option(help="Of the server's session.")]
_First = Annotated[str, typer.Option(help="Of the study, as 2026-01-31; unset: any.")]
_Last = Annotated[str, typer.Option(help="Of the study; unset: any.")]
_Publish = Annotated[
    bool, typer.Option("--publish-models", help="Give the server the models; sites see it.")
]
_Yes = Annotated[bool, typer.Option("--yes", help="The fingerprints were compared.")]
_Site = Annotated[str | None, typer.Argument(help="The site; left out: the server.")]
_Request = Annotated[
    Path | None, typer.Argument(help="What the site sent: a key card, or a request in PEM.")
]
_Again = Annotated[bool, typer.Option("--again", help="Another federation of the same sites.")]
_After = Annotated[
    Path | None, typer.Option(help="The server's record of a federation that this one follows.")
]
_Only = Annotated[
    bool, typer.Option("--only", help="Refuse the certificate before at once (it was stolen).")
]


@federate_app.command()
def init(
    folder: _Folder,
    name: _Name,
    host: _Host,
    config: _Config,
    days: _Days = 397,
    launch: _Launch = "flower",
    transport: _Transport = "session",
    port: _Port = 9443,
    first_day: _First = "",
    last_day: _Last = "",
    publish_models: _Publish = False,
    passphrase_env: Passphrase = None,
) -> None:
    """Begin a federation: folders, keys, a certificate authority, the server's certificate.

    DIR/coordinator stays here: with --passphrase-env its two keys are encrypted. DIR/server is for
    the server's machine; its keys are not encrypted, so that it can restart by itself.
    DIR/server/federation.toml has every setting with its meaning.

    For example: secure-fl federate init fl --name trial --host fl.example.org --config my.toml
    """
    from secure_fl.config_file import load_config
    from secure_fl.deployment.coordinator import Coordinator
    from secure_fl.deployment.planning import Study
    from secure_fl.deployment.settings import Deployment

    read = load_config(config)
    tables = {"server": {"host": host, "port": port}, "superlink": {"host": host}}
    settings = Deployment(name=name, launch=launch, transport=transport, **tables)
    with refusing():
        study = Study(first_day, last_day, publish_models, days)
        secret = passphrase_of(passphrase_env)
        made = Coordinator.new(folder, settings, read, study, passphrase=secret)
    out.print(f"coordinator's fingerprint {made.identity.member.fingerprint}")
    _show_ends(made)
    said = "next: give every site this fingerprint by voice or on paper, get its key card"
    out.print(f"{said} (`secure-fl site init`), then `secure-fl federate sign {folder} CARD...`")


@federate_app.command()
def sign(
    folder: _Folder,
    cards: Annotated[list[Path] | None, typer.Argument(help="Key cards of sites.")] = None,
    yes: _Yes = False,
    again: _Again = False,
    after: _After = None,
    passphrase_env: Passphrase = None,
) -> None:
    """Check key cards, sign the next roster and plan, write an invitation for each site.

    Compare each card's fingerprint with its site by voice or on paper before you say yes. Sites,
    shapes and numbers of clients are checked first; where something does not fit, nothing is
    written. It can be repeated; without cards it signs again what changed in federation.toml, or
    after a site was revoked. A federation under way goes on under the plan that it began with.
    With --after the plan goes on from a federation that its server has closed (`federate close`):
    models, rounds and ledgers go on, and new sites take part from the next round.

    For example: secure-fl federate sign fl north.card east.card south.card
    """
    from secure_fl.deployment.coordinator import Coordinator
    from secure_fl.deployment.key_card import MOST_CARD, KeyCard
    from secure_fl.files import held, read_bytes

    data = [read_bytes(path, most=MOST_CARD) for path in cards or ()]
    made = Coordinator.open(folder, passphrase=passphrase_of(passphrase_env))
    with held(made.own), refusing():
        known = set(made.cards().values())
        _compared([KeyCard.open(each) for each in data if each not in known], yes=yes)
        made.read()  # what cannot be read is no matter of fit
        draft, before = _draft(made, data, after, again=again), made.in_force()
        invitations = made.publish(draft)
    _show_signed(draft, before)
    for path in invitations:
        out.print(f"wrote {path}")
    _show_ends(made)
    copied = f"copy {made.server} to the server's machine, send each invitation to its site"
    out.print(f"next: {copied}, then `secure-fl federate start` there")


@federate_app.command()
def revoke(
    folder: _Folder,
    site: Annotated[str, typer.Argument(help="The site that takes part no longer.")],
    passphrase_env: Passphrase = None,
) -> None:
    """Let a site in no more: its stream ends within seconds, nobody waits for its clients any
    longer, and the next roster and plan are without it.

    DIR/server/seats.json says who is let in, and is read anew all the time: where the server runs
    on another machine, copy it there at once.

    For example: secure-fl federate revoke fl north
    """
    from secure_fl.deployment.coordinator import Coordinator
    from secure_fl.errors import FileError, SecureFLError
    from secure_fl.files import held

    made = Coordinator.open(folder, passphrase=passphrase_of(passphrase_env))
    with held(made.own), refusing():
        before, roster = made.in_force(), made.revoke(site)
        out.print(f"{site} is revoked: roster revision {roster.revision}")
        try:
            draft = made.draft()
            made.publish(draft)
            _show_signed(draft, before)
        except FileError as error:
            remedy = (
                "make room, then `secure-fl federate sign`: only the plan without it is missing"
            )
            raise error.within("no plan is written yet", remedy) from None
        except SecureFLError as error:
            err.print(f"there is no plan without it yet: {error}", style="yellow")
    out.print(f"next: copy {made.seats.path} to the server's machine at once, if it is another")
    if made.settings.launch == "flower":
        node = made.seats.read()[site].node_key
        out.print(f"and strike its node off at the SuperLink: `federate start` does. It is {node}")
    out.print("the other sites need their new invitations before the next federation")


@federate_app.command()
def renew(
    folder: _Folder,
    site: _Site = None,
    request: _Request = None,
    only: _Only = False,
    yes: _Yes = False,
    passphrase_env: Passphrase = None,
) -> None:
    """Issue a certificate anew: the server's, or a site's by what `secure-fl site renew` made.

    Nothing restarts: a server takes up new files by itself (copy DIR/server/tls and seats.json to
    its machine), a site takes up its new invitation. A site's certificate before stays good until
    it ends, or with --only is refused at once.

    For example: secure-fl federate renew fl north north.card
    """
    from secure_fl.deployment.coordinator import Coordinator
    from secure_fl.errors import ConfigError
    from secure_fl.files import held, read_bytes

    if (site is None) != (request is None):
        remedy = "name the site and what it sent, or neither for the server"
        raise ConfigError("one without the other", "SITE REQUEST", str(site), remedy)
    made = Coordinator.open(folder, passphrase=passphrase_of(passphrase_env))
    with held(made.own), refusing():
        if site is None or request is None:
            made.renew_server()
            out.print(f"next: copy {made.server / 'tls'} to the server's machine, if it is another")
        else:
            data = read_bytes(request)
            _ends(made)  # what cannot be read is said before anything is written
            if data.startswith(b"-----BEGIN"):
                _compared_request(site, data, yes=yes)
            path = made.renew_site(site, data, only=only)
            out.print(f"wrote {path}: send it to {site}, and copy {made.seats.path} to the server")
    _show_ends(made)


def _draft(made: Coordinator, cards: list[bytes], record: Path | None, *, again: bool) -> Draft:
    """What is to be signed: it goes on from a federation where a record of one is given."""
    from secure_fl.deployment.succession import Ended, check_continued

    ended = None if record is None else Ended.of(record, made.identity.member)
    with refusing(all_errors=True):
        draft = made.draft(cards, again=again)
        if ended is not None:
            return ended.followed_by(draft)
        if not again:
            check_continued(made.in_force(), draft.plan)
        return draft


def _compared(cards: list[KeyCard], *, yes: bool) -> None:
    """Show what is new, and ask whether it was compared. Raises typer.Exit: it was not."""
    if not cards:
        return
    rows = [
        [card.site, len(card.parties), "x".join(map(str, card.shape)) or "-", card.fingerprint]
        for card in cards
    ]
    out.print(Sheet("new key cards", ["site", "parties", "shape", "fingerprint"], rows))
    _ask("Did each site tell you the same fingerprint, by voice or on paper?", yes=yes)


def _compared_request(site: str, request: bytes, *, yes: bool) -> None:
    import hashlib

    out.print(f"request of {site}: SHA-256 {hashlib.sha256(request).hexdigest()}")
    _ask("Did the site tell you the same, by voice or on paper?", yes=yes)


def _ask(question: str, *, yes: bool) -> None:
    from secure_fl.errors import DeploymentError

    if yes or (sys.stdin.isatty() and typer.confirm(question)):
        return
    remedy = "compare it, then say yes, or pass --yes"
    raise DeploymentError("was not compared", "fingerprint", "not confirmed", remedy)


def _show_signed(draft: Draft, before: Plan | None) -> None:
    from secure_fl.deployment.key_card import KeyCard
    from secure_fl.deployment.planning import strong_sites

    roster, plan = draft.roster, draft.plan
    clients = len(roster.names("client"))
    out.print(
        f"{roster.federation}: roster revision {roster.revision}, "
        f"{counted(len(draft.cards), 'site')}, {counted(clients, 'client')}; "
        f"plan {plan.digest.hex()}"
    )
    opened = [KeyCard.open(data) for data in draft.cards.values()]
    for site, why in strong_sites(plan, opened).items():
        out.print(f"{site} has {why}", style="yellow")
    if before is not None and before.digest != plan.digest:
        anew = "begins anew, with new ledgers" if plan.follows is None else "goes on from a record"
        out.print(
            f"this is another plan, which {anew}: a federation under way goes on under its old "
            "one, until `federate start` begins another",
            style="yellow",
        )


def _ends(made: Coordinator) -> list[tuple[str, str, int]]:
    """When each certificate ends, and in how many days. Raises SecureFLError: one is damaged."""
    from secure_fl.deployment.certificates import days_left, ends
    from secure_fl.deployment.server_folder import tls_of
    from secure_fl.files import read_bytes

    rows = list[tuple[str, str, int]]()
    for who, pem in (
        ("authority", made.authority.pem),
        ("server", read_bytes(tls_of(made.server).certificate)),
    ):
        rows.append((who, str(ends(pem).date()), days_left(pem)))
    today = datetime.now(UTC).date()
    for site, seat in sorted(made.seats.read().items()):
        if not seat.revoked:
            left = (datetime.fromisoformat(seat.ends).date() - today).days
            rows.append((site, seat.ends, left))
    return rows


def _show_ends(made: Coordinator) -> None:
    rows = [list(row) for row in _ends(made)]
    out.print(Sheet("certificates", ["of", "ends", "days left"], rows))


for _command in (start, resume, close, stop, status):
    federate_app.command()(_command)
