"""A site's own clients, from its own files alone: as one run of all clients together would have
them.

Whatever a run finds by looking at everybody's examples must be in the plan here: how classes are
numbered, which columns there are and in which order, which values text columns have. What the plan
does not say is refused, with what to add; nothing is guessed from one site's share.

Guarantee: where a run with all clients' files gives client i these examples, the site gives the
client that is i-th in the plan the same: training, validation and test examples, scaled alike, bit
for bit.
Assumes: clients come in the order of their names in both; `data.test_fraction` and the like are the
plan's.
Not covered: an example that two sites hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from secure_fl.config import DataConfig, FederationConfig, SourceConfig
from secure_fl.crypto.identities import LONGEST_NAME, check_name
from secure_fl.data.dataset import Dataset
from secure_fl.data.joining import join
from secure_fl.data.natural import check_groups, joined_clients
from secure_fl.data.partitions import ClientData, own_client
from secure_fl.data.scaling import Scaling
from secure_fl.data.sources import load_source
from secure_fl.data.views import check_range
from secure_fl.deployment.site.settings import SiteSettings
from secure_fl.errors import DeploymentError, SecureSumError
from secure_fl.federation.plan import Plan

_TABLES, _ARRAYS = ("csv", "parquet"), ("npz", "npy")


def own_examples(
    settings: SiteSettings, base: Path, config: FederationConfig, classes: int | None = None
) -> dict[str, Dataset]:
    """This site's examples by client, by names as on the roster.

    Args:
        settings: of the site.
        base: folder that relative paths begin in.
        config: of the federation, as far as it is known.
        classes: how many a plan says there are.

    Raises:
        DataError: a file is missing, damaged, or not as the configuration says.
        DeploymentError: nothing says who holds what, or a client's name is not plain.
    """
    data = config.data
    if data.class_names is None and classes:
        data = data.model_copy(update={"classes": classes})
    parts = []
    for source in settings.data.sources:
        read, _ = load_source(_as_planned(source, base, data), data, config.seed)
        parts.append(read.with_classes(data.classes, data.class_names))
    if settings.client is not None:
        return {settings.client: join(parts, settings.client)}
    if any(part.client is None for part in parts):
        remedy = (
            "name the column in data.sources.client of site.toml (site init --clients-by), or set "
            "client = NAME for one client that holds all (site init --client)"
        )
        raise DeploymentError("nothing says who holds what", "site.toml", settings.name, remedy)
    whole = joined_clients(parts)
    check_groups(whole)
    return _by_client(whole, settings.name)


def _by_client(whole: Dataset, site: str) -> dict[str, Dataset]:
    """The examples of each client that the data name."""
    assert whole.client is not None
    found = {}
    for owner in whole.client.unique().tolist():
        value = whole.client_names[owner] if whole.client_names else str(owner)
        found[party_name(site, value)] = whole.take(whole.client == owner)
    return found


def party_name(site: str, value: str) -> str:
    """A natural client's name on the roster. Raises DeploymentError: it would not be a plain one;
    the value, which may be somebody's name, is not shown.
    """
    name = f"{site}.{value}"
    try:
        return check_name(name, "client")
    except SecureSumError:
        remedy = (
            f"use letters, digits, dots, dashes and underscores, at most {LONGEST_NAME} with the "
            "site's name before it; everybody reads the roster, so give codes, not names of people"
        )
        raise DeploymentError(
            "a client of the data has no plain name", "data.sources.client", "not shown", remedy
        ) from None


def _as_planned(source: SourceConfig, base: Path, data: DataConfig) -> SourceConfig:
    """A source as this site has it, with what the plan says of sources of its kind."""
    kinds = _TABLES if source.name in _TABLES else _ARRAYS if source.name in _ARRAYS else ()
    planned = next((each for each in data.sources if each.name in kinds), None)
    update: dict[str, object] = {"path": str(base / (source.path or ""))}
    for name in ("features", "categories") if kinds == _TABLES else ("kind", "layout"):
        if planned is not None and getattr(source, name) in (None, "auto"):
            update[name] = getattr(planned, name)
    return source.model_copy(update=update)


def plan_clients(
    settings: SiteSettings, base: Path, plan: Plan, names: Iterable[str]
) -> dict[str, ClientData]:
    """This site's clients as the plan makes them; see `own_examples` and `as_planned`."""
    config = natural(plan.config)
    return as_planned(own_examples(settings, base, config, plan.classes), plan, names)


def as_planned(
    own: Mapping[str, Dataset], plan: Plan, names: Iterable[str]
) -> dict[str, ClientData]:
    """Clients as the plan makes them of their examples.

    Args:
        own: examples by client, classes numbered by the plan.
        plan: accepted, or to be looked at.
        names: of the clients.

    Raises:
        DataError, PartitionError: as a run does, by the same rules.
        DeploymentError: the data are not of the plan's form, or the plan leaves open what only all
            clients' data would tell.
    """
    config, found = natural(plan.config), dict[str, ClientData]()
    for name in names:
        if name not in own:
            remedy = "put its examples back, or ask the coordinator to leave it out"
            raise DeploymentError("no examples of this client", "site.toml", name, remedy)
        found[name] = _as_in_a_run(own[name], name, plan, config)
    return found


def natural(config: FederationConfig) -> FederationConfig:
    """The configuration of a run whose clients bring their own examples. Raises DeploymentError:
    it would deal examples out among the clients, or change them.
    """
    kind = config.partition.kind
    if kind not in ("auto", "natural"):
        remedy = 'set partition.kind = "natural" in the plan'
        problem = "the plan deals examples out, and no site has those of others"
        raise DeploymentError(problem, "partition.kind", kind, remedy)
    spec = config.partition.model_copy(update={"kind": "natural"})
    return config.model_copy(update={"partition": spec})


def _as_in_a_run(own: Dataset, name: str, plan: Plan, config: FederationConfig) -> ClientData:
    _check_declared(own, config)
    if tuple(own.shape) != tuple(plan.shape):
        remedy = "bring the examples into the plan's form, or ask for a plan of this one"
        problem = f"the plan's examples are of shape {tuple(plan.shape)}"
        raise DeploymentError(problem, "data.sources", tuple(own.shape), remedy)
    if not plan.classes:
        own = own.unlabelled()
    number = plan.clients.index(name)
    client = own_client(own, number, name, len(plan.clients), config)
    if config.augments:
        check_range(client.train)
    return Scaling.of(config, client.train).client(client)


def _check_declared(own: Dataset, config: FederationConfig) -> None:
    """Refuse what was read off this site's examples alone and other sites may read otherwise."""
    table = next((each for each in config.data.sources if each.name in _TABLES), None)
    open_questions = (
        (bool(own.class_names) and config.data.class_names is None, "data.class_names",
         "labels are names, and the plan does not say how they are numbered",
         "name every class in data.class_names of the plan"),
        (not own.columns_declared, "data.sources.categories",
         "columns were made of values that this site's examples have",
         "name the values of text columns in data.sources.categories of the plan"),
        (bool(own.columns) and (table is None or table.features is None), "data.sources.features",
         "the plan does not say which columns there are, and in which order",
         "name them in data.sources.features of the plan"),
    )  # fmt: skip
    for is_open, field, problem, remedy in open_questions:
        if is_open:
            raise DeploymentError(problem, field, None, remedy)


def shape_of(clients: Mapping[str, Dataset]) -> tuple[tuple[int, ...], int]:
    """Shape of one example, and the number of classes."""
    first = next(iter(clients.values()))
    return tuple(first.shape), first.classes
