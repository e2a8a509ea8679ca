"""Client-level privacy over a whole run: the mechanism of each phase, and the noise that keeps both
within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from secure_fl.config import FederationConfig
from secure_fl.errors import PrivacyError
from secure_fl.privacy.adaptive_clip import QuantileBound, bit_noise_for
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.calibration import noise_of_run
from secure_fl.privacy.client_level import SMALLEST_GRID, ClientLevel
from secure_fl.privacy.events import Event, IntegerEvent
from secure_fl.privacy.integer_noise import LARGEST_DEVIATION

ADAPTATION = QuantileBound()


@dataclass(frozen=True)
class ClientPlan:
    """What every client on the roster releases.

    Attributes:
        pretrain, pools: the mechanism of either phase, None where the phase does not run.
        rounds: of either; every one is paid for by every client, called or not.
    """

    pretrain: ClientLevel | None
    pools: ClientLevel | None
    rounds: tuple[int, int]

    def by_phase(self) -> dict[str, IntegerEvent]:
        """All releases of each phase that runs."""
        phases = zip(("pretrain", "cluster"), (self.pretrain, self.pools), self.rounds, strict=True)
        return {name: level.event(rounds) for name, level, rounds in phases if level is not None}

    def events(self) -> list[Event]:
        """All releases of the run."""
        return list(self.by_phase().values())

    def of(self, phase: str) -> ClientLevel:
        """The mechanism of a phase that runs."""
        level = self.pretrain if phase == "pretrain" else self.pools
        assert level is not None
        return level


def plan_clients(
    config: FederationConfig, roster: int, model: int, pool: tuple[int, int]
) -> ClientPlan:
    """The plan with the smallest noise that keeps the run within the budget, or with the noise that
    is set. Raises PrivacyError: the roster is too small, or no noise of a sensible size is enough.

    Args:
        roster: number of clients.
        model: length of the vector that pre-training sends.
        pool: lengths of the shared and of the pooled part that the cluster phase sends.
    """
    privacy = config.privacy

    def plan(noise: float) -> ClientPlan:
        pretrain = pools = None
        if config.pretrain.mode == "federated":
            pretrain = _level(config, roster, noise, 1, 0, model)
        if config.pools.enabled:
            pools = _level(config, roster, noise, config.pools.count, *pool)
        return ClientPlan(pretrain, pools, (config.pretrain.rounds, config.pools.rounds))

    if privacy.noise is not None:
        return plan(privacy.noise)
    remedy = (
        "fewer rounds, more clients, or a finer field for their noise: fewer privacy.scale_bits"
    )
    noise = noise_of_run(
        lambda noise: plan(noise).events(),
        privacy.epsilon,
        privacy.delta,
        Adjacency(privacy.adjacency),
        remedy=remedy,
    )
    return plan(noise)


def _level(
    config: FederationConfig, roster: int, noise: float, pools: int, shared: int, pooled: int
) -> ClientLevel:
    """The mechanism of one phase, or what is refused, by the names of the settings."""
    privacy = config.privacy
    n_min = privacy.fewest_survivors(roster)
    if n_min <= privacy.colluders:
        raise PrivacyError(
            f"no honest client is left among the fewest survivors, {n_min} of {roster} clients",
            "privacy.min_clients",
            privacy.min_clients,
            f"set it above privacy.colluders = {privacy.colluders}, with as many clients at least, "
            "or lower privacy.colluders",
        )
    try:
        return _mechanism(config, roster, noise, n_min, pools, shared, pooled)
    except PrivacyError as error:
        raise _in_settings(error, config, noise, n_min - privacy.colluders) from None


def _in_settings(
    error: PrivacyError, config: FederationConfig, noise: float, honest: int
) -> PrivacyError:
    """What the mechanism refuses by the names of its own arguments, by the settings that they were
    made from.
    """
    privacy = config.privacy
    if error.field == "count_noise":
        remedy = "leave it out, lower it, or raise privacy.false_pass or security.min_pool_clients"
        return PrivacyError(error.problem, "privacy.count_noise", privacy.count_noise, remedy)
    if error.field != "levels":
        return error
    steps = 2**privacy.scale_bits
    least, most = SMALLEST_GRID / steps, LARGEST_DEVIATION * sqrt(honest) / steps
    if noise > most:
        remedy = f"at most {most:.3g}, or fewer privacy.scale_bits than {privacy.scale_bits}"
    elif noise < least:
        remedy = f"at least {least:.3g}, or leave it out, which calibrates it"
    else:
        remedy = "leave it out, which calibrates it, or take fewer clients or pools"
    return PrivacyError(error.problem, "privacy.noise", noise, remedy)


def _mechanism(
    config: FederationConfig,
    roster: int,
    noise: float,
    n_min: int,
    pools: int,
    shared: int,
    pooled: int,
) -> ClientLevel:
    """The mechanism of one phase as the settings say, with its integers fitted to them."""
    privacy = config.privacy
    return ClientLevel(
        pools=pools,
        pooled=pooled,
        shared=shared,
        bound=privacy.clip,
        levels=2**privacy.scale_bits,
        noise_multiplier=noise,
        roster=roster,
        n_min=n_min,
        colluders=privacy.colluders,
        kind=privacy.integer_noise,
        rounding=privacy.rounding,
        minimum=config.security.min_pool_clients,
        count_noise=privacy.count_noise,
        accepted_false_pass=privacy.false_pass,
        bit_noise=bit_noise_for(roster) if privacy.adaptive_clip else None,
    ).fitted()
