"""`secure-fl site`: a hospital's, or another site's, side of a federation over several machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_fl.cli.common import command_group
from secure_fl.cli.console import Sheet, err, out
from secure_fl.cli.exits import DONE, EXITS, FAILED, INTERRUPTED, REFUSED, UNREACHABLE, refusing
from secure_fl.cli.signals import noted_signals
from secure_fl.cli.site_check import check
from secure_fl.quantities import counted

if TYPE_CHECKING:
    from secure_fl.deployment.site.folder import SiteFolder
    from secure_fl.deployment.site.making import Made
    from secure_fl.deployment.site.settings import SiteSettings
    from secure_fl.deployment.site.ways import Outcome
    from secure_fl.operations.watching import Watching

site_app = command_group(
    f"""\
One site of a federation: its examples and keys stay in its own folder and process.

{EXITS}"""
)
_ENDS = {
    "finished": DONE,
    "refused": REFUSED,
    "failed": FAILED,
    "unreachable": UNREACHABLE,
    "stopped": INTERRUPTED,
}
site_app.command()(check)

_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")]


_Name = Annotated[str, typer.Option(help="The site's name; everybody reads it.")]
_Data = Annotated[Path | None, typer.Option(help="File or folder with the examples.")]
_Label = Annotated[str | None, typer.Option(help="Column or array with the labels.")]
_ClientsBy = Annotated[
    str | None, typer.Option(help="Column whose values are this site's clients.")
]
_Client = Annotated[
    str | None, typer.Option(help="One client that holds all examples, by its name.")
]
_Split = Annotated[str | None, typer.Option(help="Column with train, validation or test.")]
_Group = Annotated[str | None, typer.Option(help="Column whose equal values stay together.")]
_Config = Annotated[
    Path | None, typer.Option(help="The federation's configuration, where it is known.")
]
_Role = Annotated[
    str, typer.Option(help="data, or authority: holds the encryption key, no examples.")
]
_Tell = Annotated[
    bool,
    typer.Option(
        "--tell-examples",
        help="Say on the key card how many examples each client has: plans that weight by them "
        "need it, and everybody in the federation may then know it.",
    ),
]

_NAMED = {"server": "server reached", "place": "step, round of it", "round": "rounds in all"}


@site_app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    name: _Name,
    data: _Data = None,
    label: _Label = None,
    clients_by: _ClientsBy = None,
    client: _Client = None,
    split: _Split = None,
    group: _Group = None,
    config: _Config = None,
    role: _Role = "data",
    tell_examples: _Tell = False,
) -> None:
    """Make a site's folder: settings, policy, keys, and the key card for the coordinator.

    The folder and its keys are yours alone (0700, 0600). Edit policy.toml: it says what this site
    accepts, and its own process holds the plan against it. Send DIR/key-card to the coordinator,
    and its fingerprint by another way, by voice or on paper.

    For example: secure-fl site init /srv/fl --name hospital-1 --data stays.csv --clients-by ward
    """
    from secure_fl.deployment.site.making import make_site

    with refusing():
        roles = {"label": label, "client": clients_by, "split": split, "group": group}
        settings = _settings(name, role, data, client, roles)
        made = make_site(folder, settings, _config(config), tell_examples=tell_examples)
        _say_made(made)


def _say_made(made: Made) -> None:
    """What was made, and what comes next."""
    for note in made.notes:
        out.print(note)
    folder, card = made.folder, made.card
    names = ", ".join(card.parties)
    out.print(f"made {folder.path}: {names}; everybody in the federation reads these names")
    if card.shape:
        classes = counted(card.classes, "class") if card.classes else "no classes"
        out.print(f"on the key card: examples of shape {card.shape}, {classes}")
    out.print(f"1. edit {folder.policy_file}: what this site accepts")
    out.print(f"2. send {folder.key_card} to the coordinator, and by another way its")
    out.print(f"   fingerprint {card.fingerprint}")
    out.print(f"3. `secure-fl site join {folder.path} INVITATION --coordinator FINGERPRINT`")


def _settings(
    name: str, role: str, data: Path | None, client: str | None, roles: dict[str, str | None]
) -> SiteSettings:
    from secure_fl.data.sources.files import kind_of
    from secure_fl.deployment.site.settings import SiteSettings
    from secure_fl.errors import ConfigError

    if client is not None and roles["client"] is not None:
        remedy = "give --clients-by COLUMN for several clients, --client NAME for one"
        raise ConfigError("both are given", "--client, --clients-by", client, remedy)
    sources: list[dict[str, Any]] = []
    if data is not None:
        source = {"name": kind_of(data, "--data"), "path": str(data.resolve())}
        sources = [source | {role: each for role, each in roles.items() if each is not None}]
    given: dict[str, Any] = {"name": name, "role": role, "data": {"sources": sources}}
    return SiteSettings(**given | ({} if client is None else {"client": client}))


def _config(path: Path | None) -> Any:
    from secure_fl.config_file import load_config

    return None if path is None else load_config(path)


@site_app.command()
def join(
    folder: _Folder,
    invitation: Annotated[Path, typer.Argument(help="What the coordinator sent.")],
    coordinator: Annotated[
        str | None,
        typer.Option(help="The coordinator's fingerprint, told by another way; once is enough."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take another plan, roster or app than is pinned.")
    ] = False,
) -> None:
    """Check an invitation and store it, also while the site runs: signatures, this site's own keys
    on the roster, the certificate against this machine's key. Pins plan, roster and app.
    """
    from secure_fl.deployment.invitation import MOST_INVITATION
    from secure_fl.deployment.site.folder import SiteFolder
    from secure_fl.deployment.site.joining import join as join_site
    from secure_fl.files import read_bytes

    with refusing():
        site = SiteFolder.open(folder)
        data = read_bytes(invitation, most=MOST_INVITATION)
        joined = join_site(site, data, coordinator, replace=replace)
        for name in joined.changed:
            out.print(f"pinned {name} {getattr(joined.pins, name)}")
        for difference in joined.differences:
            out.print(f"changed: {difference}")
        out.print(f"joined {joined.invitation.settings.name}")
        out.print(f"the certificate is good for {counted(joined.days, 'day')}")
        out.print(_next(site, changed=bool(joined.changed)))


def _next(site: SiteFolder, *, changed: bool) -> str:
    """What is to be done after joining."""
    from secure_fl.deployment.site.status import running

    again = f"`secure-fl site check {site.path}`, then `secure-fl site run {site.path}`"
    if not running(site):
        return f"next: {again}"
    if changed:
        return (
            "the site runs: it goes on under the plan that it began with; one that was started "
            f"with --forever begins this one after that, else: {again}"
        )
    return "the site runs: it takes the certificate up by itself, nothing else is to be done"


@site_app.command()
def run(
    folder: _Folder,
    forever: Annotated[
        bool,
        typer.Option("--forever/--once", help="When it is over, wait for the next invitation."),
    ] = False,
) -> None:
    """Take part in the federation, as a process that lasts until it is over. After a kill, start it
    again: it goes on from its folder. Ended by SIGTERM or Ctrl-C it says so (143, 130).
    """
    from secure_fl.deployment.site.folder import SiteFolder
    from secure_fl.deployment.site.running import run_site

    with refusing():
        site = SiteFolder.open(folder)
        with noted_signals(lambda n: SystemExit(128 + n)) as caught, _observed(site) as watch:

            def stop() -> bool:
                watch.turned()
                return bool(caught)

            outcome = run_site(site, stop=stop, forever=forever, also=watch)
        _say(outcome, site)
        code = 128 + caught[0] if outcome.word == "stopped" and caught else _ENDS[outcome.word]
    raise typer.Exit(code)


def _say(outcome: Outcome, site: SiteFolder) -> None:
    """How it ended, in words."""
    from secure_fl.deployment.site.running import ENDED_EARLY

    if outcome.word == "finished":
        out.print(f"the federation has come to its end; the models are in {site.model}")
        if site.settings.role == "data":
            out.print(f"this site's own scores: {site.result}; they stay here")
    elif outcome.word == "refused":
        err.print(f"this site refuses: {outcome.reason}", style="red")
        err.print(f"change {site.policy_file}, or ask for another plan", style="yellow")
    elif outcome.word == "failed":
        err.print(f"the federation failed: {outcome.reason}", style="red")
        if outcome.reason == ENDED_EARLY:
            said = "if the coordinator had it closed, join the invitation that goes on from here"
            err.print(said, style="yellow")
    elif outcome.word == "unreachable":
        err.print(f"{outcome.reason}; `secure-fl site check` says what is in the way", style="red")
    else:
        err.print("stopped; the next `secure-fl site run` goes on from here", style="yellow")


@contextmanager
def _observed(site: SiteFolder) -> Iterator[Watching]:
    """Logs, metrics and probes for as long as the site runs, as `operations.toml` asks; without one
    the logs that `site.toml` asks for.
    """
    from secure_fl.operations.desk import observed
    from secure_fl.operations.settings import OperationsSettings

    asked = site.settings.log
    wanted = {"logs": "json" if asked.json_lines else "text"}
    wanted |= {} if asked.file is None else {"log": str((site.path / asked.file).resolve())}
    settings = OperationsSettings.of(site.path, **wanted)
    with observed(site.path, role="site", name=site.name, tls=site.tls, settings=settings) as watch:
        yield watch


@site_app.command()
def status(folder: _Folder) -> None:
    """Whether the site runs, and how far it is. Exits with 4 where it does not."""
    from secure_fl.deployment.site.folder import SiteFolder
    from secure_fl.deployment.site.status import status_of

    with refusing():
        site = SiteFolder.open(folder)
        running, facts = status_of(site)
        rows = [[_NAMED.get(name, name), _shown(value)] for name, value in facts.items()]
        out.print(Sheet(f"{site.name}: {'running' if running else 'not running'}", ["", ""], rows))
    raise typer.Exit(0 if running else UNREACHABLE)


def _shown(value: object) -> str:
    """A fact as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{number} {name}" for name, number in value.items()) or "nothing"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


@site_app.command()
def renew(folder: _Folder) -> None:
    """Make a new key for this machine's certificate, and the key card that asks for one. The key in
    use stays, also of a site that runs, until `site join` installs the new certificate.
    """
    from secure_fl.deployment.site.folder import SiteFolder
    from secure_fl.deployment.site.making import renew as renew_site

    with refusing():
        site = SiteFolder.open(folder)
        card = renew_site(site)
        out.print(f"send {site.key_card} to the coordinator, and by another way its")
        out.print(f"fingerprint {card.fingerprint}")
        out.print(f"then: `secure-fl site join {folder} INVITATION`")
