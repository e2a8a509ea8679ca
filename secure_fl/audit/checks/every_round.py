"""One client's share of noise in every round of a run: a fault may be in a single late one.

Nothing is trained and no sum is opened, so that a round costs a client's noise on a narrow block,
and hundreds are no more than a second.
"""

from __future__ import annotations

import numpy as np

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.noise_law import measured
from secure_fl.audit.checks.rounds_again import (
    Given,
    Phase,
    RoundsAgain,
    certain,
    flat,
    settings_of,
)
from secure_fl.audit.checks.verdicts import Findings
from secure_fl.audit.subject import Subject
from secure_fl.audit.which_rounds import spread
from secure_fl.federation.state import Place

_MOST = {Depth.MINUTES: 256, Depth.HOUR: 2048, Depth.NIGHT: 16_384}
_WIDTH = 256


def noise_of_every_round(
    subject: Subject, phase: Phase, depth: Depth, seed: int, found: Findings
) -> int:
    """Each round's share, of the clients in turn, against the variance that is charged, and what
    is charged for it; how many rounds there were.
    """
    again, rng = RoundsAgain(subject, phase, width=_WIDTH), np.random.default_rng(seed)
    level, share = again.level, again.level.variance / certain(again)
    again.given = Given(again.sure(rng), [0] * len(again.clients))
    least, charged = 1.0, True
    numbers = spread(settings_of(subject, phase).rounds, _MOST[depth], seed)
    for number in numbers:
        client = again.clients[number % len(again.clients)]
        state = again.state.at(Place(0, number))
        sent = again.answer_of(client, state).blocks
        noise = flat(sent) - flat(again.clean(client.local.data.id, again.given, again.bound))
        least = min(least, measured("", noise.astype(float), share).p_narrow)
        releases = client.protection.releases(again.step.ask(state), 0)
        charged &= [each.event for each in releases] == [level.event(1)]
    found.test(least * len(numbers), f"{phase}: a client's share lacks noise in one round")
    found.exact(charged, f"{phase}: a round is not charged as its noise is")
    return len(numbers)
