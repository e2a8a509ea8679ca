"""Who can read what of a run's sums: a row for each adversary, with the numbers of this run.
Nothing here is about ε.

The rows say what holds and until which number, and nothing more; `docs/secure-sum.md` says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from secure_fl.config import FederationConfig
from secure_fl.config.security import SecurityConfig, SumRules
from secure_fl.records import Record


@dataclass(frozen=True)
class Secrecy(Record):
    """What one adversary reads, and what it cannot read.

    Attributes:
        adversary: who looks.
        holds: what it cannot read, and how many clients it must not have on its side; empty where
            nothing is kept from it.
        reads: what it reads all the same.
    """

    adversary: str
    holds: str
    reads: str


def secrecy(config: FederationConfig, clients: int) -> tuple[Secrecy, ...]:
    """The table for `summary.json`.

    Args:
        config: of the run.
        clients: how many there are. The sum that fewest colluders open decides the numbers.
    """
    return tuple(_rows(config, clients))


def _rows(config: FederationConfig, clients: int) -> Iterator[Secrecy]:
    """Every adversary in turn."""
    security = config.security
    if security.protection == "plain":
        yield Secrecy("server", "", "every client's update, and the pool it chooses")
    else:
        yield from _protected(config, config.weakest_sums(clients))
    elsewhere = "sealed under keys that lie elsewhere, and gone when the run ends"
    sealed = f", and private results: {elsewhere}"
    noised = config.privacy.unit != "none" or config.noises_sketches
    yield Secrecy(
        "reader of the disk",
        f"single clients' updates: they are not written{sealed if noised else ''}",
        "the run folder as its manifest says: models, rounds and, unless evaluate.enabled = "
        "false, the experimenter's record",
    )


def _protected(config: FederationConfig, rules: SumRules) -> Iterator[Secrecy]:
    """The rows of protected sums: servers, other clients, and who holds the key."""
    security, pools = config.security, config.pools.enabled and config.pools.count > 1
    least = security.min_pool_clients if pools else rules.survivors
    yield from _servers(security, rules, least, pools=pools)
    twice = "; one that counts itself more than once can open a pool below the minimum"
    more = twice if pools else ""
    yield Secrecy(
        f"other clients of a {'pool' if pools else 'sum'}",
        f"single updates, with fewer than all others in it, {least - 1} at the least, who follow "
        "the protocol",
        f"opened sums{more}",
    )
    if security.protection == "bfv+masked":
        yield _key_holder(security)


def _servers(
    security: SecurityConfig, rules: SumRules, least: int, *, pools: bool
) -> Iterator[Secrecy]:
    """The server, with clients that collude: one that follows the protocol, and one that lies.

    Args:
        least: clients in the smallest sum that opens.
        pools: whether there are several, each with a sum of its own.
    """
    with_key, sums = "", "opened sums"
    if security.protection == "bfv+masked" and security.key_holder == "authority":
        with_key, sums = "the authority and ", "no sum"
    elif security.protection == "bfv+masked":
        sums = "no sum by itself, and opened ones with any client, since each holds the key"
    drawing = f"{rules.colluders} who draw keys over and over, but for odds of 2^-40"
    sparse = f"; a sparse graph holds against {drawing}" if rules.degree else ""
    of_holders = f"of the m = {rules.holders} clients that hold shares of one"
    liar = " (or a single colluder that lies in its count)" if pools else ""
    seen = (
        f"{sums}; who takes part and who drops out, sizes and times, which pools open; what opened "
        f"sums show without the colluders' own shares: where {least - 1} of them{liar} are alone "
        f"with a client in a {'pool' if pools else 'sum'}, its update"
    )
    yield Secrecy(
        "server that follows the protocol, with colluding clients",
        f"single updates, with {with_key}fewer than t = {rules.threshold} {of_holders}{sparse}",
        seen,
    )
    yield Secrecy(
        "server that lies, with colluding clients",
        f"single updates, with {with_key}fewer than 2t - m = {rules.against_a_lying_server} "
        f"{of_holders}, since two survivor sets may be shown to two halves; clients refuse lists "
        f"and sets below n_min = {rules.survivors} of {rules.cohort}",
        f"{seen}, and it chooses who is in a sum; it can shift a sum that opens, and end a round",
    )


def _key_holder(security: SecurityConfig) -> Secrecy:
    """Whoever can decrypt: all clients, who share one key, or an authority."""
    if security.key_holder == "clients":
        return Secrecy(
            "key holder: every client",
            "single updates: what reaches it are sums; with the server, as above",
            "opened sums and counts",
        )
    return Secrecy(
        "key holder: the authority",
        "single updates, while it does not lie",
        "opened sums and counts; lying together with the server, any pool whatever its count: "
        "that of one client alone as well",
    )
