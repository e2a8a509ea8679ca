"""The sums of view moments over a whole run: their mechanism, and the noise that keeps them within
their part of the budget. It follows from what everybody knows, so that all shares are equal.
"""

from __future__ import annotations

from secure_fl.config import FederationConfig
from secure_fl.config.agreement import moment_epsilon
from secure_fl.errors import PrivacyError
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.calibration import noise_of_run
from secure_fl.privacy.example_sums import Shares
from secure_fl.privacy.view_moments import ViewMoments


def plan_moments(config: FederationConfig, roster: int, features: int) -> ViewMoments:
    """The mechanism of both sums: noised with the smallest noise that keeps to
    `privacy.moment_epsilon` at example level, and bare without differential privacy. Raises
    PrivacyError: too few clients, or no noise of a sensible size is enough.

    Args:
        roster: number of clients.
        features: width of the map.
    """
    pretrain, privacy = config.pretrain, config.privacy
    between = pretrain.head == "fisher"
    form = features, pretrain.views_per_example, pretrain.moment_clip, between
    if not config.noises_moments:
        return ViewMoments.without_noise(*form, roster)
    shares = _shares(config, roster)

    def made(noise: float) -> ViewMoments:
        return ViewMoments.noised(*form, shares, noise, privacy.centre_share)

    noise = noise_of_run(
        lambda noise: made(noise).events(),
        moment_epsilon(config),
        privacy.delta,
        Adjacency(privacy.adjacency),
        remedy="more clients for their noise",
    )
    return made(noise)


def _shares(config: FederationConfig, roster: int) -> Shares:
    """Whose noise is counted on; what is refused by the names of the settings."""
    privacy = config.privacy
    fewest = privacy.fewest_survivors(roster)
    try:
        return Shares(roster, fewest, privacy.colluders, privacy.integer_noise)
    except PrivacyError as error:
        problem = f"{error.problem}: the fewest survivors are {fewest} of {roster} clients"
        remedy = f"set it above privacy.colluders = {privacy.colluders}, with as many clients"
        raise PrivacyError(problem, "privacy.min_clients", privacy.min_clients, remedy) from None
