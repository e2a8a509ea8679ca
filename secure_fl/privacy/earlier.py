"""What an earlier run released, taken over by a run that starts from its encoder.

Nobody knows which client of the earlier run had the examples that a client of this one has. So each
client is charged the maximum, over the earlier run's subjects, of ε of that subject's releases and
its own together. The maximum comes after composition: of two subjects, the one whose ε was smaller
can be the costlier once more is released.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.releases import Release

LOADED = "loaded/"
"""Keys of releases that were taken over begin with it."""


def taken_over(earlier: PrivacyLedger, subjects: Sequence[int]) -> list[Release]:
    """The earlier run's histories, as releases that concern each of `subjects`; equal ones, and
    those that another one contains, once.

    **Guarantee.** For every unit, adjacency and δ, and whatever this run releases, each of
    `subjects` is charged at least what any subject of the earlier run would be charged. That run's
    own histories, if it had loaded an encoder itself, are told apart likewise.

    **Assumes.** The earlier ledger is complete. For the unit client: each client was one client of
    the earlier run, and not several.

    **Not covered.** Earlier runs whose encoder was brought along as a module or a function, without
    its run.
    """
    found = list(dict.fromkeys(frozenset(history.items()) for history in _histories(earlier)))
    counted = [Counter(dict(history)) for history in found]
    kept = [one for one in counted if not any(one < other for other in counted)]
    made = list[Release]()
    for number, history in enumerate(kept):
        for part, kind in enumerate(sorted(history, key=repr)):
            event, key = kind.event.with_count(history[kind]), f"{LOADED}{number}/{part}"
            one = replace(kind, key=key, subjects=tuple(subjects), event=event, history=number)
            made.append(one)
    return made


def _histories(ledger: PrivacyLedger) -> list[Counter[Release]]:
    """How often each kind was released of one subject, by subject and possible history."""
    releases, made = ledger.releases, []
    for client in sorted({subject for release in releases for subject in release.subjects}):
        mine = [release for release in releases if client in release.subjects]
        brought = sorted({release.history for release in mine if release.history is not None})
        for number in (*brought,) or (None,):
            history = Counter[Release]()
            for release in mine:
                if release.history in (None, number):
                    history[_kind(release)] += release.event.count
            made.append(history)
    return made


def _kind(release: Release) -> Release:
    """The release without what tells it from others of its kind."""
    return replace(
        release, key=LOADED, round=0, subjects=(0,), event=release.event.with_count(1), history=None
    )
