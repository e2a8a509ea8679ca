"""The plan of a federation, from the coordinator's configuration and what sites say of themselves.

**Guarantee**: numbers of examples are in a plan only where its averages are weighted by them and it
protects no privacy unit; everything else in it is public. Sites of other shapes or classes are
refused by name.

**Assumes**: every site runs the code that is installed here: its digest is in the plan.

**Not covered**: whether a site's examples have the form that its card says (the site checks that).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from secure_fl.config import FederationConfig
from secure_fl.crypto.roster import Roster
from secure_fl.data.scaling import check_columns
from secure_fl.deployment.certificates import END_DAYS
from secure_fl.deployment.key_card import SERVER, KeyCard
from secure_fl.errors import DeploymentError
from secure_fl.estimate.stop_watch import sample_state
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.plan import Plan
from secure_fl.federation.policy.installed import code_digest
from secure_fl.federation.policy.terms import SOURCE
from secure_fl.federation.site import program_of
from secure_fl.records import Record

_ROOM = 1 << 20


@dataclass(frozen=True)
class Study(Record):
    """What a plan says beside its configuration.

    Attributes:
        first_day, last_day: of the study, as `2026-01-31`; empty for no limit.
        publish_models: whether the server is given the models.
        days: how long certificates of machines are good for.

    Raises:
        DeploymentError: a day that is none, or a last one before the first.
    """

    first_day: str = ""
    last_day: str = ""
    publish_models: bool = False
    days: int = END_DAYS

    def __post_init__(self) -> None:
        found = []
        for name in ("first_day", "last_day"):
            text = getattr(self, name)
            try:
                found += [date.fromisoformat(text)] if text else []
            except ValueError:
                raise DeploymentError("not a day", name, text, "such as 2026-01-31") from None
        if found != sorted(found):
            remedy = "set a first day that is not after the last"
            raise DeploymentError("ends before it begins", "last_day", self.last_day, remedy)


@dataclass(frozen=True)
class Draft:
    """A roster and a plan that could be signed.

    Attributes:
        roster, plan: the next, or those that are in force.
        cards: of all sites as they sent them, by name.
    """

    roster: Roster
    plan: Plan
    cards: Mapping[str, bytes] = field(repr=False)


def plan_of(
    config: FederationConfig, roster: Roster, cards: Sequence[KeyCard], study: Study
) -> Plan:
    """The plan of everybody on the roster, with their number of clients. Builds the models.

    Args:
        config, study: what is computed, and when.
        roster: to be in force.
        cards: of all sites.

    Raises DeploymentError: sites do not fit each other or the configuration, or a number of
    examples that weights need is not told; ConfigError: too few clients, or another rule of the
    configuration; DataError: given means are not one a column of the sites' examples; ModelError:
    the encoder does not fit the examples.
    """
    clients, (shape, classes) = roster.names("client"), _form(cards)
    check_columns(config, shape)
    config = _for_clients(config, len(clients))
    plan = Plan(
        config.model_dump(mode="json"),
        shape,
        classes,
        clients,
        roster.digest,
        layout=bytes(32),
        start=bytes(32),
        largest_state=_ROOM,
        server=SERVER,
        authority=_authority(config, roster),
        largest=_largest(config, clients, cards),
        first_day=study.first_day,
        last_day=study.last_day,
        code={SOURCE: code_digest()},
        publish_models=study.publish_models,
    )
    program = program_of(plan)
    # the sample's numbers are float32, and some may be float64
    most = _ROOM + 2 * len(sample_state(program.factory).encode())
    layout, start = _layout(program.factory), program.start().digest
    return replace(plan, layout=layout, start=start, largest_state=most)


def strong_sites(plan: Plan, cards: Sequence[KeyCard]) -> dict[str, str]:
    """Sites with so many clients that they and a server that lies could open others' updates, and
    why. Thresholds count clients, and a site is all of its clients at once.
    """
    if plan.protection == "plain":
        return {}
    rules, found = plan.config.weakest_sums(len(plan.clients)), dict[str, str]()
    for card in cards:
        here = sum(member.role == "client" for member in card.members)
        if here >= rules.against_a_lying_server:
            found[card.site] = (
                f"{here} of {len(plan.clients)} clients, and {rules.against_a_lying_server} of one "
                "mind open others' updates beside a server that lies: raise security.threshold"
            )
    return found


def check_nodes(cards: Sequence[KeyCard]) -> None:
    """With Flower every site has a node of its own. Raises DeploymentError: one has none, or that
    of another site, whose public key anybody may know.
    """
    known = dict[bytes, str]()
    for card in cards:
        if not card.node:
            remedy = "ask for a card with a node key, or set launch in federation.toml"
            problem = "Flower starts runs, and it has no node"
            raise DeploymentError(problem, "site", card.site, remedy)
        key = card.node.split()[1]
        if known.setdefault(key, card.site) != card.site:
            remedy = "ask both for their key cards anew, by another way"
            problem = f"has the node of another site, {known[key]}"
            raise DeploymentError(problem, "site", card.site, remedy)


def _for_clients(config: FederationConfig, clients: int) -> FederationConfig:
    """The configuration for real clients, each of whom has its own examples."""
    tables, kind = config.model_dump(mode="json"), config.partition.kind
    if kind not in ("auto", "natural"):
        remedy = 'set partition.kind = "natural"'
        problem = "it deals examples out, and no site has those of others"
        raise DeploymentError(problem, "partition.kind", kind, remedy)
    tables["partition"] |= {"kind": "natural", "clients": max(1, clients)}
    config = FederationConfig(**tables)
    config.check_sums(clients)
    return config


def _form(cards: Sequence[KeyCard]) -> tuple[tuple[int, ...], int]:
    """Shape of one example and number of classes, in which all sites agree."""
    first: KeyCard | None = None
    for card in cards:
        if not card.shape:
            continue
        first = first or card
        for what in ("shape", "classes"):
            here, there = getattr(card, what), getattr(first, what)
            if here != there:
                problem = f"{card.site} has {what} {here}, and {first.site} has {there}"
                remedy = "let one of them prepare its examples as the other does"
                raise DeploymentError(problem, what, card.site, remedy)
    if first is None:
        remedy = "sign the card of a site that has clients"
        raise DeploymentError("no site has examples", "key cards", len(cards), remedy)
    return first.shape, first.classes


def _authority(config: FederationConfig, roster: Roster) -> str:
    found, wanted = roster.names("authority"), config.security.key_holder == "authority"
    if len(found) == int(wanted):
        return found[0] if wanted else ""
    if wanted:
        problem = f"one authority is to hold the key, and {len(found)} are there"
        remedy = "sign the card of exactly one site that runs the authority"
    else:
        problem = "the clients hold the key, and there is an authority"
        remedy = 'leave its card out, or set security.key_holder = "authority"'
    raise DeploymentError(problem, "security.key_holder", config.security.key_holder, remedy)


def _largest(config: FederationConfig, clients: Sequence[str], cards: Sequence[KeyCard]) -> int:
    """Examples of the largest client, where averages are weighted by them; else 1."""
    weighted = "examples" in (config.pretrain.weights, config.pools.weights)
    if config.privacy.unit != "none" or not weighted:
        return 1
    told: Mapping[str, int] = {name: n for card in cards for name, n in card.examples.items()}
    for name in clients:
        if name not in told:
            problem = "weights need its number of examples, which its site does not tell"
            remedy = 'set pretrain.weights and pools.weights to "uniform", or ask for a new card'
            raise DeploymentError(problem, "examples", name, remedy)
    return max(told[name] for name in clients)


def _layout(factory: Factory) -> bytes:
    """Digest of the names, types and shapes of the encoder's tensors."""
    tensors: dict[str, Any] = factory.make_encoder(0).state_dict()
    text = repr([(name, str(each.dtype), tuple(each.shape)) for name, each in tensors.items()])
    return hashlib.sha256(text.encode()).digest()


def check_renewal(newer: KeyCard, card: KeyCard, cards: Mapping[str, bytes]) -> None:
    """A renewal brings keys of a machine, and no party: those a roster has to name.

    Args:
        newer: the site's new card.
        card: the one before.
        cards: of all sites, by name, where their nodes have to differ; else none.

    Raises:
        DeploymentError: it has other parties, or another site's node.
    """
    if set(newer.cards) != set(card.cards):
        remedy = "sign it, where they are to take part: `secure-fl federate sign DIR CARD`"
        value = sorted(set(newer.parties) - set(card.parties))
        raise DeploymentError("other parties than it had", newer.site, value, remedy)
    if cards:
        others = (KeyCard.open(data) for site, data in cards.items() if site != newer.site)
        check_nodes([*others, newer])
