"""What must hold between the tables of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from secure_fl.config.section import Rule

if TYPE_CHECKING:
    from secure_fl.config.federation import FederationConfig

OPEN_STARTS = ("restarts", "farthest")
"""Baselines whose server reads what a sum would hide: protection is off unless set, and refused."""

MOMENT_ROUNDS = 2
"""Rounds of pre-training by view moments: one for the centre, one for the moments."""


def moment_epsilon(config: FederationConfig) -> float:
    """What the sums of view moments may cost an example, as part of the run's budget."""
    privacy = config.privacy
    if privacy.moment_epsilon is not None:
        return privacy.moment_epsilon
    return privacy.epsilon / 2 if config.pools.enabled else privacy.epsilon


def rules_between(config: FederationConfig) -> Iterator[Rule]:
    """Every rule between tables, as (holds, setting, its value, problem, remedy)."""
    yield from _pretraining_rules(config)
    yield from _moment_rules(config)
    yield from _moment_costs(config)
    yield from _adaptive_rules(config)
    yield from _pool_rules(config)
    yield from _other_rules(config)
    yield from _column_rules(config)
    yield from _private_rules(config)
    yield from _unit_rules(config)
    yield from _robust_rules(config)


# fmt: off
def _pretraining_rules(config: FederationConfig) -> list[Rule]:
    """Pre-training has what it needs, and there is something to train."""
    pretrain, pools = config.pretrain, config.pools
    return [
        (pretrain.mode != "centralized" or pretrain.source is not None, "pretrain.source", None,
         "centralized pre-training has no data",
         'name a set in [pretrain.source], or set pretrain.mode = "federated"'),
        (pretrain.mode != "load" or pretrain.load_from is not None, "pretrain.load_from", None,
         "no run folder to load from", "set pretrain.load_from to a finished run folder"),
        (not pools.enabled or pools.start != "pretrained" or pretrain.mode != "none",
         "pools.start", pools.start, "there is no pre-trained encoder",
         'set pools.start = "random" or pretrain.mode = "federated"'),
        (pools.enabled or pretrain.mode != "none", "pools.enabled", pools.enabled,
         "both phases are switched off", "enable the pools or choose a pretrain.mode"),
    ]


def _moment_rules(config: FederationConfig) -> list[Rule]:
    """View moments: sums over everybody's examples, of which the encoder is computed."""
    pretrain, pools, privacy = config.pretrain, config.pools, config.privacy
    if pretrain.method != "view_moments":
        return []
    return [
        (pretrain.mode in ("federated", "load"), "pretrain.mode", pretrain.mode,
         "view moments are a sum over clients",
         'set pretrain.mode = "federated", or pretrain.method = "train"'),
        (pretrain.rounds == MOMENT_ROUNDS, "pretrain.rounds", pretrain.rounds,
         "view moments are two sums, the centre and the moments", "leave it out"),
        (pretrain.participation == 1, "pretrain.participation", pretrain.participation,
         "the two sums are over everybody, once", "set it to 1, or leave it out"),
        (privacy.unit != "client", "privacy.unit", privacy.unit,
         "view moments bound what an example adds to a sum, not what a client does",
         'set privacy.unit = "example", or pretrain.method = "train"'),
        (config.security.robust == "none", "security.robust", config.security.robust,
         "each group's sum would be a release of its own, and noise is made for everybody's",
         'set security.robust = "none", or pretrain.method = "train"'),
        (not pools.enabled or pools.encoder == "frozen", "pools.encoder", pools.encoder,
         "the encoder is fixed features and a matrix, with nothing to train",
         'set pools.encoder = "frozen", or leave it out'),
        (not pools.enabled or pools.task == "supervised", "pools.task", pools.task,
         "the encoder of view moments is fixed: pools without labels would train projectors, which "
         "nothing uses",
         'set pools.enabled = false, or pretrain.method = "train"'),
        (config.model.encoder == "auto", "model.encoder", config.model.encoder,
         "view moments bring their own encoder",
         'leave it out, or set pretrain.method = "train"'),
    ]


def _moment_costs(config: FederationConfig) -> list[Rule]:
    """What view moments may cost an example."""
    pools, privacy, cost = config.pools, config.privacy, moment_epsilon(config)
    if config.pretrain.method != "view_moments":
        return []
    return [
        (privacy.unit != "example" or pools.enabled or privacy.noise is None,
         "privacy.noise", privacy.noise,
         "nothing is trained, and the noise of view moments follows from what they may cost",
         "leave it out, and set privacy.epsilon"),
        (privacy.unit != "example" or not pools.enabled or cost < privacy.epsilon,
         "privacy.moment_epsilon", privacy.moment_epsilon,
         f"view moments alone would use up privacy.epsilon = {privacy.epsilon:g}",
         "set it below privacy.epsilon, or set pools.enabled = false"),
        (privacy.unit != "example" or cost <= privacy.epsilon,
         "privacy.moment_epsilon", privacy.moment_epsilon,
         f"above privacy.epsilon = {privacy.epsilon:g}", "leave it out, or raise privacy.epsilon"),
    ]


def _adaptive_rules(config: FederationConfig) -> list[Rule]:
    """There is a separation whose weights may follow something, and something that they follow."""
    objective, pools, unit = config.objective, config.pools, config.privacy.unit
    fixed = not objective.adaptive
    sketched = pools.enabled and pools.start == "sketch" and pools.sketch_of != "encoder"
    return [
        (fixed or objective.name in ("ssd", "ssd_nt_xent"), "objective.adaptive", True,
         f"{objective.name} has no separation whose weights could follow anything",
         'set objective.name = "ssd", or leave objective.adaptive out'),
        (fixed or config.pretrain.mode == "federated", "objective.adaptive", True,
         "clients train nothing in pre-training",
         'set pretrain.mode = "federated", or leave objective.adaptive out'),
        (fixed or config.pretrain.method == "train", "objective.adaptive", True,
         "view moments train nothing, so that there is no objective to weigh",
         'set pretrain.method = "train", or leave objective.adaptive out'),
        (fixed or unit != "client", "objective.adaptive", True,
         "under client-level privacy nothing is opened that says how far clients differ",
         'leave objective.adaptive out, or set privacy.unit = "example"'),
        (fixed or unit != "none" or config.security.robust == "none", "security.robust",
         config.security.robust, "sums of groups do not say how far clients differ",
         'set security.robust = "none", or leave objective.adaptive out'),
        (fixed or unit != "example" or sketched, "pools.sketch_of", pools.sketch_of,
         "under privacy gamma and delta follow the sketches, which come before any encoder then",
         'set pools.start = "sketch" and pools.sketch_of = "examples", or leave '
         "objective.adaptive out"),
    ]


def _pool_rules(config: FederationConfig) -> list[Rule]:
    """Clients have what they choose a pool by, and a warm-up leaves rounds after it."""
    pools, kept = config.pools, config.data.validation_fraction
    return [
        (not pools.enabled or pools.select_on == "train" or kept > 0,
         "data.validation_fraction", kept,
         "clients are to choose on validation data but keep none",
         'set data.validation_fraction = 0.1, or pools.select_on = "train"'),
        (not pools.enabled or pools.task == "supervised" or pools.select_by == "loss",
         "pools.select_by", pools.select_by,
         "a self-supervised pool has no accuracy", 'set pools.select_by = "loss"'),
        (not pools.enabled or pools.start != "sketch" or pools.warmup_rounds < pools.rounds,
         "pools.warmup_rounds", pools.warmup_rounds, "no round is left after the warm-up",
         f"set it below pools.rounds = {pools.rounds}, leave it out, or set more pools.rounds"),
    ]


def _other_rules(config: FederationConfig) -> list[Rule]:
    """Clients, views, measuring, and starts that need to be in the open."""
    partition, pools = config.partition, config.pools
    crop, shares = config.views.crop_scale, config.evaluate.fine_tune
    runtime = config.runtime
    seen = pools.enabled and pools.start in OPEN_STARTS
    return [
        (partition.kind != "natural" or not partition.ignore_clients,
         "partition.ignore_clients", True, "natural clients are those that the data bring",
         "set it to false, or choose another partition.kind"),
        (not partition.grouped or partition.groups <= partition.clients,
         "partition.groups", partition.groups,
         f"more groups than the {partition.clients} clients (partition.clients)",
         f"at most {partition.clients}, or more clients"),
        (crop is None or 0 < crop[0] <= crop[1] <= 1, "views.crop_scale", crop,
         "not an ascending pair within (0, 1]", "for example [0.4, 1.0]"),
        (all(0 < share <= 1 for share in shares), "evaluate.fine_tune", shares,
         "not a list of shares within (0, 1]", "for example [0.01, 0.1]"),
        (runtime.workers == 1 or (runtime.threads == 1 and runtime.device != "cuda"),
         "runtime.workers", runtime.workers, "each worker process has one thread of a processor",
         'set runtime.threads = 1 and runtime.device = "cpu", or runtime.workers = 1'),
        (not seen or config.security.protection == "plain", "pools.start", pools.start,
         "this start shows the server clients' models or choices",
         'set pools.start = "sketch", or security.protection = "plain"'),
    ]


def _column_rules(config: FederationConfig) -> list[Rule]:
    """How the columns of tables are brought to one scale."""
    data = config.data
    means, deviations = data.column_means, data.column_deviations
    given = means is not None or deviations is not None
    lengths = tuple(None if numbers is None else len(numbers) for numbers in (means, deviations))
    return [
        (data.scale != "per_client" or config.privacy.unit != "example", "data.scale", data.scale,
         "a client's own statistics tie each of its examples to all others, and example-level "
         "privacy hides one at a time",
         'set data.scale = "given", with public numbers in data.column_means and '
         "data.column_deviations"),
        (data.scale != "given" or given, "data.column_means", None,
         'data.scale = "given", and no means and deviations are given',
         "set data.column_means and data.column_deviations, one number a column each"),
        (lengths[0] == lengths[1], "data.column_deviations",
         f"{lengths[0]} means and {lengths[1]} deviations",
         "every column needs both a mean and a deviation",
         "give data.column_means and data.column_deviations as many numbers, one a column"),
        (not given or data.scale in ("auto", "given"), "data.scale", data.scale,
         "data.column_means are given and would not be used",
         'set data.scale = "given", or leave data.column_means and data.column_deviations out'),
    ]


def _private_rules(config: FederationConfig) -> list[Rule]:
    """Nothing private is shown beside what is noised, whatever the unit."""
    privacy, pretrain, pools = config.privacy, config.pretrain, config.pools
    private = privacy.unit != "none"
    chosen = privacy.unit == "example" and pools.enabled and pools.count > 1
    by_loss = pools.task != "supervised" and privacy.chooses_by_loss(pools.start)
    return [
        (not private or (pretrain.weights == "uniform" and pools.weights == "uniform"),
         "pools.weights", (pretrain.weights, pools.weights), "a weight is a private count",
         'leave pretrain.weights and pools.weights out, or set them to "uniform"'),
        (not private or not pools.enabled or pools.start not in OPEN_STARTS,
         "pools.start", pools.start,
         "this start shows clients' models or choices and has no private form",
         'set pools.start = "sketch", "pretrained" or "random"'),
        (privacy.adjacency != "add-remove" or not (private or config.noises_sketches),
         "privacy.adjacency", privacy.adjacency,
         "a run follows each client's number of examples, and an absent client's noise share "
         "would be missing",
         'set privacy.adjacency = "zero-out" or "replace-one"; mechanisms used from Python take '
         "a public bound"),
        (not chosen or not by_loss, "privacy.choice", privacy.choice,
         "a self-supervised score is no mean of bounded losses",
         'set pools.start = "sketch", whose choice is free, or pools.task = "supervised"'),
    ]


def _unit_rules(config: FederationConfig) -> list[Rule]:
    """What one unit of privacy, a client or an example, needs and the other does not."""
    privacy, pretrain, pools = config.privacy, config.pretrain, config.pools
    example, client = privacy.unit == "example", privacy.unit == "client"
    everybody = pretrain.participation == 1 and (pools.participation == 1 or not pools.enabled)
    code = config.objective.form == "code" and config.objective.name.startswith("ssd")
    unsketched = pools.enabled and privacy.choice == "sketch" and pools.start != "sketch"
    return [
        (not client or everybody, "pools.participation",
         (pretrain.participation, pools.participation),
         "every client on the roster adds its noise share each round, and sampling amplifies "
         "nothing",
         "set pretrain.participation and pools.participation to 1"),
        (not client or not pools.enabled or pools.start != "sketch", "pools.start", pools.start,
         "the sketch is released at example level only",
         'set pools.start = "pretrained" or "random"'),
        (not example or not code, "objective.form", config.objective.form,
         "its Frobenius norm couples the examples of a batch",
         'leave objective.form out, or set it to "normalized"'),
        (not example or not config.noises_sketches or privacy.sketch_epsilon < privacy.epsilon,
         "privacy.sketch_epsilon", privacy.sketch_epsilon,
         f"sketches alone would use up privacy.epsilon = {privacy.epsilon:g}",
         "set it below privacy.epsilon, or choose another pools.start"),
        (not example or not unsketched, "privacy.choice", privacy.choice,
         "there is no sketch to choose by",
         'set pools.start = "sketch", or privacy.choice = "exponential"'),
    ]


def _robust_rules(config: FederationConfig) -> list[Rule]:
    """Sums over groups; whether there are clients enough is checked once the data are known."""
    security, pools = config.security, config.pools
    none, fewest = security.robust == "none", security.min_pool_clients
    least = pools.count * fewest if pools.enabled else fewest
    return [
        (none or security.protection != "plain", "security.robust", security.robust,
         "in the open no groups are summed",
         'set security.protection = "bfv+masked" or "masked", or security.robust = "none"'),
        (none or config.privacy.unit != "client", "security.robust", security.robust,
         "each group would be a release of its own, and noise is made for the whole roster",
         'set security.robust = "none", or privacy.unit = "example"'),
        (none or security.group_size >= least, "security.group_size", security.group_size,
         "a group would seldom have min_pool_clients in a pool",
         f"set it to at least pools.count x security.min_pool_clients = {least}, or lower one "
         "of the two"),
    ]
# fmt: on
