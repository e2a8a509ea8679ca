"""`secure-fl policy`: what this site accepts of a federation's plan, and whether a plan fits."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_fl.cli.common import command_group, write_new
from secure_fl.cli.console import Sheet, err, out
from secure_fl.errors import ConfigError

if TYPE_CHECKING:
    from secure_fl.config import FederationConfig
    from secure_fl.crypto.roster import Roster
    from secure_fl.federation.policy.policy import Policy
    from secure_fl.federation.policy.rules import Judgement
    from secure_fl.federation.policy.terms import PlanTerms, Signed

REFUSED = 1
_DEFAULT = Path("policy.toml")

policy_app = command_group(
    "What this site accepts of a federation's plan: a file of its own, that its own process "
    "holds every plan against before it joins."
)


@policy_app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = _DEFAULT,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a policy: every limit at its default, with the reason for it.

    The defaults ask for differential privacy of ε = 8 at most, for sums that no server reads, and
    for three clients or more in whatever is opened. Change what your site's rules say otherwise,
    set the days of its approval, and keep the file where only its owner writes.
    """
    from secure_fl.federation.policy.policy import default_policy

    write_new(path, default_policy(), force=force)
    out.print(
        f"wrote {path}; hold a plan against it with `secure-fl policy check PLAN --policy {path}`"
    )


_Plan = Annotated[Path, typer.Argument(help="The plan: a configuration in TOML.")]
_Policy = Annotated[Path, typer.Option(help="This site's policy.")]
_Clients = Annotated[
    int | None, typer.Option(min=1, help="How many take part, where the plan does not say.")
]
_Examples = Annotated[
    int | None, typer.Option(min=2, help="Training examples here: for ε of a set noise.")
]
_Labelled = Annotated[int | None, typer.Option(min=0, help="How many have labels; all, unset.")]
_Shape = Annotated[str | None, typer.Option(help="Of one example, 1x28x28: for ε at client level.")]
_Classes = Annotated[int | None, typer.Option(min=1, help="How many, for ε at client level.")]
_Roster = Annotated[Path | None, typer.Option(help="The signed roster: its clients are counted.")]
_SignedBy = Annotated[Path | None, typer.Option(help="The coordinator's card, with --roster.")]


@policy_app.command()
def check(
    plan: _Plan,
    policy: _Policy = _DEFAULT,
    clients: _Clients = None,
    examples: _Examples = None,
    labelled: _Labelled = None,
    shape: _Shape = None,
    classes: _Classes = None,
    roster: _Roster = None,
    signed_by: _SignedBy = None,
) -> None:
    """Hold a plan against this site's policy, setting by setting. Needs no data, trains nothing.

    Whatever the plan says of itself is worked out again here: thresholds from its settings and the
    number of clients, ε from its noise, rates and rounds by this site's own accountant. Noise that
    the plan leaves unset is made for its budget by each site, so the budget is its ε; noise that
    it sets may spend more, and --examples (or --shape and --classes, at client level) says how
    much. What cannot be known counts as refused.

    Exits with 0 where the plan is accepted, 1 where it is refused, 2 where something cannot be
    read.

    For example: secure-fl policy check plan.toml --clients 8 --examples 1200
    """
    from secure_fl.config_file import load_config
    from secure_fl.federation.policy.cost import OwnData
    from secure_fl.federation.policy.installed import code_digest
    from secure_fl.federation.policy.policy import Policy
    from secure_fl.federation.policy.terms import PlanTerms

    limits, config = Policy.load(policy), load_config(plan)
    members = _roster(roster, signed_by)
    count = _clients(config, clients, members)
    own, signed = OwnData(examples, labelled, _shape(shape), classes), _signed(members)
    terms = PlanTerms.of(
        config, count, own, signed=signed, code=code_digest(), accounted=limits.accounted
    )
    if not _show(limits, terms, plan, policy):
        raise typer.Exit(REFUSED)


def _show(policy: Policy, terms: PlanTerms, plan: Path, path: Path) -> bool:
    """Print the verdict on every setting, and what is not looked at; True where all are met."""
    from secure_fl.federation.policy.rules import PLAN_SETTINGS

    found = list(policy.judge(terms, datetime.date.today()))
    refused = [each for each in found if each.reason is not None]
    columns = ["setting", "asked", "allowed", "verdict"]
    out.print(Sheet(f"{plan} against {path}", columns, list(map(_row, found))))
    if policy.unchecked:
        out.print(f'not checked ("any"): {", ".join(policy.unchecked)}')
    if policy.study.code is None:
        out.print(f"the source installed here, for study.code: {terms.code}")
    if not refused:
        out.print("accepted", style="green")
        return True
    for each in refused:
        if remedy := _REMEDIES.get(each.field) if each.reason == "unknown" else None:
            err.print(f"{each.field} cannot be known: {remedy}", style="yellow")
    for field in dict.fromkeys(each.field for each in refused if each.reason != "unknown"):
        if field in PLAN_SETTINGS:
            said = f"{field} is about the plan's {PLAN_SETTINGS[field]}: ask whoever wrote it to "
            err.print(f"{said}change that, or allow it in {path}", style="yellow")
    fields = dict.fromkeys(each.field for each in refused)
    err.print(f"refused for {', '.join(fields)}", style="red")
    return False


_OWN = "pass --examples (at client level --shape and --classes)"
_REMEDIES = {
    "privacy.epsilon": _OWN,
    "privacy.noise": _OWN,
    "study.roster_revision": "pass --roster and --signed-by",
    "study.roster_digest": "pass --roster and --signed-by",
    "study.plans": "a configuration has no digest; a signed plan has",
}
"""How to make known what a verdict lacks."""


def _row(found: Judgement) -> list[str]:
    return [found.field, found.asked, found.allowed, found.reason or "ok"]


def _roster(path: Path | None, card: Path | None) -> Roster | None:
    from secure_fl.crypto.identities import Member
    from secure_fl.crypto.roster import Roster
    from secure_fl.files import read_bytes

    if path is None and card is None:
        return None
    if path is None or card is None:
        remedy = "pass both: a roster is believed by its signature only"
        value = str(path or card)
        raise ConfigError(
            "one without the other", field="--roster, --signed-by", value=value, remedy=remedy
        )
    return Roster.open(read_bytes(path), Member.from_card(read_bytes(card)))


def _signed(roster: Roster | None) -> Signed | None:
    from secure_fl.federation.policy.terms import Signed

    return None if roster is None else Signed(roster.revision, roster.digest.hex())


def _clients(config: FederationConfig, given: int | None, roster: Roster | None) -> int:
    """How many clients: by the roster, the option, or the configuration where it says so."""
    counted = None if roster is None else len(roster.names())
    if counted is not None and given not in (None, counted):
        remedy = "leave it out: the roster says how many"
        raise ConfigError(
            f"the roster has {counted}", field="--clients", value=given, remedy=remedy
        )
    if (known := counted or given) is not None:
        return known
    if not config.knows_clients:
        remedy = "pass --clients, or --roster and --signed-by"
        raise ConfigError(
            "the plan does not say how many", field="--clients", value=None, remedy=remedy
        )
    return config.partition.clients


def _shape(text: str | None) -> tuple[int, ...] | None:
    """Sizes written with an x between them.

    Raises:
        ConfigError: something else.
    """
    if text is None:
        return None
    sizes = text.lower().split("x")
    if not all(size.isascii() and size.isdecimal() and len(size) < 7 for size in sizes):
        remedy = "sizes with an x between them, such as 1x28x28 or 30"
        raise ConfigError("not a shape", field="--shape", value=text, remedy=remedy)
    return tuple(map(int, sizes))
