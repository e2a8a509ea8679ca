"""Mechanisms, their noise, what they cost, and the ledger of every release.

Public names, each imported when it is used:

- `Adjacency`: How neighbours differ.
- `Adversary`: Who is looking: the server, other clients, whoever gets the models.
- `Budget`: The (ε, δ) that no subject's releases may pass.
- `check_separable`: Refuse what is known to mix rows, and trainable layers without a rule.
- `choose_mechanism`: A mechanism that is valid for the objective's coupling: `auto` takes released
  statistics or per-example clipping.
- `ClientLevel`: Settings of client-level privacy, equal at every client and at whoever opens.
- `discrete_gaussian`: P(k) proportional to exp(-k²/(2σ²)) with σ `deviation`.
- `epsilon`: ε such that all `events` together are (ε, δ)-DP.
- `epsilon_of`: As `epsilon`, each event at its own adjacency.
- `GaussianEvent`: `steps` adaptive sums of Poisson-sampled units, each with Gaussian noise of
  deviation `noise_multiplier`·C.
- `IntegerEvent`: `releases` sums of integer vectors with integer noise that `parties` clients added
  in equal shares.
- `is_separable`: Whether `check_separable` lets the model pass.
- `noise_for`: Noise multiplier of a Poisson-sampled Gaussian so that `steps` of it, together with
  `also`, are (ε, δ)-DP.
- `NoiseSource`: The secret key of one run, and the record of which streams were taken from it.
- `NoiseStream`: Consecutive draws from one keystream; no part of it is used twice.
- `PrivacyClaim`: One row of the table of ε per adversary.
- `PrivacyLedger`: All releases of a run, and the budget they are held against, if any.
- `PrivacyUnit`: What one neighbouring data set differs by.
- `PrivateChoice`: The exponential mechanism on bounded scores.
- `PrivateSketch`: Settings of the two releases of noised sketches, public and equal at
  every client.
- `PrivateSpec`: One call's share of private training: SGD from a fresh optimiser.
- `PrivateTraining`: One call of private training: what it is charged for is what it does, since
  both are of one mechanism and one number of steps.
- `PureEvent`: `releases` of an ε-DP mechanism: exponential mechanism or randomised response.
- `Release`: One thing that leaves somebody, with the event that says what it costs.
- `rounds_within`: How many rounds of `per_round`, after `already`, a subject's budget holds; at
  most `most`, 0 when not even one.
- `Sampling`: What of a client's set and steps the accounting needs; all of it public.
- `skellam`: The difference of two Poisson variables of mean `variance`/2 each.
- `smallest_noise`: The smallest noise z, to 0.2 %, whose plan `events(z)`, together with `also`, is
  (ε, δ)-DP; more noise must never cost more.
- `train_privately`: Take `spec.steps` steps of SGD on noised gradients.
- `Verification`: What recomputing a ledger showed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.privacy.accounting import epsilon as epsilon
    from secure_fl.privacy.accounting import epsilon_of as epsilon_of
    from secure_fl.privacy.adjacency import Adjacency as Adjacency
    from secure_fl.privacy.adjacency import PrivacyUnit as PrivacyUnit
    from secure_fl.privacy.calibration import noise_for as noise_for
    from secure_fl.privacy.calibration import rounds_within as rounds_within
    from secure_fl.privacy.calibration import smallest_noise as smallest_noise
    from secure_fl.privacy.choice import PrivateChoice as PrivateChoice
    from secure_fl.privacy.claims import Adversary as Adversary
    from secure_fl.privacy.claims import PrivacyClaim as PrivacyClaim
    from secure_fl.privacy.client_level import ClientLevel as ClientLevel
    from secure_fl.privacy.engine import PrivateSpec as PrivateSpec
    from secure_fl.privacy.engine import PrivateTraining as PrivateTraining
    from secure_fl.privacy.engine import Sampling as Sampling
    from secure_fl.privacy.engine import choose_mechanism as choose_mechanism
    from secure_fl.privacy.engine import train_privately as train_privately
    from secure_fl.privacy.events import GaussianEvent as GaussianEvent
    from secure_fl.privacy.events import IntegerEvent as IntegerEvent
    from secure_fl.privacy.events import PureEvent as PureEvent
    from secure_fl.privacy.integer_noise import discrete_gaussian as discrete_gaussian
    from secure_fl.privacy.integer_noise import skellam as skellam
    from secure_fl.privacy.ledger import PrivacyLedger as PrivacyLedger
    from secure_fl.privacy.ledger import Verification as Verification
    from secure_fl.privacy.noise import NoiseSource as NoiseSource
    from secure_fl.privacy.noise import NoiseStream as NoiseStream
    from secure_fl.privacy.private_sketch import PrivateSketch as PrivateSketch
    from secure_fl.privacy.releases import Budget as Budget
    from secure_fl.privacy.releases import Release as Release
    from secure_fl.privacy.row_isolation import check_separable as check_separable
    from secure_fl.privacy.row_isolation import is_separable as is_separable

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "accounting": ["epsilon", "epsilon_of"],
        "calibration": ["noise_for", "rounds_within", "smallest_noise"],
        "choice": ["PrivateChoice"],
        "claims": ["Adversary", "PrivacyClaim"],
        "client_level": ["ClientLevel"],
        "engine": [
            "PrivateSpec",
            "PrivateTraining",
            "Sampling",
            "choose_mechanism",
            "train_privately",
        ],
        "events": ["GaussianEvent", "IntegerEvent", "PureEvent"],
        "integer_noise": ["discrete_gaussian", "skellam"],
        "ledger": ["PrivacyLedger", "Verification"],
        "noise": ["NoiseSource", "NoiseStream"],
        "private_sketch": ["PrivateSketch"],
        "releases": ["Budget", "Release"],
        "row_isolation": ["check_separable", "is_separable"],
        "adjacency": ["Adjacency", "PrivacyUnit"],
    },
)
