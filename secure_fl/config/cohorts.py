"""How many clients a round needs, for its share, the pools and the smallest sum that is opened."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING

from secure_fl.config.section import Rule
from secure_fl.config.security import FEWEST

if TYPE_CHECKING:
    from secure_fl.config.federation import FederationConfig
    from secure_fl.config.tables import OptimiserConfig


def group_sizes(clients: int, least: int) -> set[int]:
    """Sizes of the groups that so many clients are dealt into, `least` members or more in each."""
    groups = max(1, clients // least)
    return {clients // groups, -(-clients // groups)}


def cohort_rules(config: FederationConfig, clients: int) -> Iterator[Rule]:
    """What must hold for a run of so many clients: rounds can be opened, and every pool filled."""
    pools, protected = config.pools, config.security.protection != "plain"
    if pools.enabled and not protected:
        problem = f"more pools than the {clients} clients (partition.clients)"
        remedy = f"at most {clients}, or more clients"
        yield pools.count <= clients, "pools.count", pools.count, problem, remedy
    if protected and config.pretrain.mode == "federated":
        problem = (
            "{cohort} of {clients} clients a round: a sum of fewer than 3 shows each to the others"
        )
        remedy = 'more clients, or security.protection = "plain"'
        yield _enough("pretrain", config.pretrain, clients, FEWEST, problem, remedy)
    if protected and pools.enabled:
        least = config.security.min_pool_clients
        needed = f"{pools.count} x {least} = {pools.count * least}"
        most = pools.cohort_size(clients) // least
        fewer = f"or pools.count at most {most}" if most else 'or security.protection = "plain"'
        problem = (
            "{cohort} of {clients} clients a round cannot fill every pool: pools.count x "
            f"security.min_pool_clients = {needed}"
        )
        remedy = f"more clients, {fewer}"
        if least > FEWEST:
            remedy += f", or security.min_pool_clients = {FEWEST}"
        yield _enough("pools", pools, clients, pools.count * least, problem, remedy)
    shares = config.privacy.unit == "client" or config.noises_moments
    if shares and config.privacy.min_clients is not None:
        yield from _survivors(config, clients, config.privacy.min_clients, protected=protected)


def _enough(
    table: str, settings: OptimiserConfig, clients: int, least: int, problem: str, remedy: str
) -> Rule:
    """A round calls `least` clients; where all would do, the share that is called is to blame."""
    cohort, share = settings.cohort_size(clients), settings.participation
    problem = problem.format(cohort=cohort, clients=clients)
    if clients >= least:
        remedy = f"at least {ceil(100 * least / clients) / 100:g}, {remedy}"
        return cohort >= least, f"{table}.participation", share, problem, remedy
    return False, "partition.clients", clients, problem, f"at least {least}: {remedy}"


def _survivors(
    config: FederationConfig, clients: int, fewest: int, *, protected: bool
) -> Iterator[Rule]:
    """The smallest sum that noise shares are made for, against roster, colluders and pools."""
    field, privacy = "privacy.min_clients", config.privacy
    problem = f"more survivors than the {clients} clients (partition.clients)"
    yield fewest <= clients, field, fewest, problem, f"at most {clients}"
    problem = f"no honest client is left beside privacy.colluders = {privacy.colluders}"
    yield fewest > privacy.colluders, field, fewest, problem, f"at least {privacy.colluders + 1}"
    least = max(FEWEST, config.security.min_pool_clients if config.pools.enabled else 0)
    problem = (
        "a sum of so few could be opened, and no pool of it has security.min_pool_clients = "
        f"{config.security.min_pool_clients}"
    )
    yield not protected or fewest >= least, field, fewest, problem, f"at least {least}"
