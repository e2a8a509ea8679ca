"""Lower bounds on ε from what an audit saw, each in a file that can be read alone.

Public names, each imported when it is used: `one_run_bound`, `one_run_f_bound`, `Looks`,
`gaussian_shift_bound`, `one_shot_estimate` and `noise_shift_bound` make a `Bound`; `guessed` makes
the `Outcome` that the first two take; `epsilon_of_gaussian` and `gaussian_delta` are the Gaussian
mechanism's own curve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.audit.bounds.gaussian import epsilon_of_gaussian as epsilon_of_gaussian
    from secure_fl.audit.bounds.gaussian import gaussian_delta as gaussian_delta
    from secure_fl.audit.bounds.gaussian_shift import gaussian_shift_bound as gaussian_shift_bound
    from secure_fl.audit.bounds.guesses import Outcome as Outcome
    from secure_fl.audit.bounds.guesses import guessed as guessed
    from secure_fl.audit.bounds.looks import Looks as Looks
    from secure_fl.audit.bounds.noise_shift import noise_shift_bound as noise_shift_bound
    from secure_fl.audit.bounds.one_run import one_run_bound as one_run_bound
    from secure_fl.audit.bounds.one_run_f import one_run_f_bound as one_run_f_bound
    from secure_fl.audit.bounds.one_shot import one_shot_estimate as one_shot_estimate
    from secure_fl.audit.bounds.result import Bound as Bound

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "gaussian": ["epsilon_of_gaussian", "gaussian_delta"],
        "gaussian_shift": ["gaussian_shift_bound"],
        "guesses": ["Outcome", "guessed"],
        "looks": ["Looks"],
        "noise_shift": ["noise_shift_bound"],
        "one_run": ["one_run_bound"],
        "one_run_f": ["one_run_f_bound"],
        "one_shot": ["one_shot_estimate"],
        "result": ["Bound"],
    },
)
