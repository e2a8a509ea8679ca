"""Running one check so that whatever happens becomes an outcome, and is no pass."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from secure_fl.audit.check import Check, Depth
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.document import encoded
from secure_fl.errors import SecureFLError

_PACKAGE = "secure_fl"


def tried(
    check: Check, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
) -> Outcome:
    """What a check says. `not tried`, with what stopped it, where it raises or says what no file
    can hold; arguments as `Check.run`.
    """
    began = time.monotonic()
    try:
        outcome = replace(check.run(subject, depth, seed, progress), check=check.name)
        encoded(outcome)
    except Exception as error:
        outcome = not_tried(check, said_of(error))
    return replace(outcome, seconds=round(time.monotonic() - began, 2))


def not_tried(check: Check, said: str) -> Outcome:
    """That a check was stopped, which is no pass."""
    return Outcome(check.name, check.tried, "", "", "not tried", said)


def said_of(error: Exception) -> str:
    """What stopped a check, without a value that may be an example's: a typed error's words, or
    the kind and the place of any other.
    """
    if isinstance(error, SecureFLError):
        return f"{error.field}: {error.problem}; {error.remedy}"
    frames = traceback.extract_tb(error.__traceback__)[1:]
    ours = [frame for frame in frames if f"/{_PACKAGE}/" in frame.filename] or frames
    place = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"stopped by {type(error).__name__}{place}"
