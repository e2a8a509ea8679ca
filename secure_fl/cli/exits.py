"""What the exit codes of `secure-fl federate` and `secure-fl site` mean, and which error has which:
one table for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from secure_fl.cli.console import err
from secure_fl.crypto.refusals import Reason
from secure_fl.errors import (
    DeploymentError,
    EngineError,
    PartitionError,
    PrivacyError,
    SecureFLError,
    SecureSumError,
)

DONE, REFUSED, UNUSABLE, FAILED, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
EXITS = """\
\b
Exit codes:
  0         done; for start, resume and run: the federation came to its end
  1         refused, or does not fit: a card, a plan, a policy, a site that is not known, a second
            server
  2         cannot be read or used: a file or setting that is missing or damaged, a passphrase, a
            port
  3         the federation failed; its reason is printed
  4         not running, or not reachable
  130, 143  interrupted; the next run, or `federate resume`, goes on
"""
_DAMAGED = (Reason.MALFORMED, Reason.TRUNCATED, Reason.WRONG_LENGTH, Reason.BIT_FLIPPED)


def exit_code(error: SecureFLError) -> int:
    """The code with which an error ends a command."""
    reason = getattr(error, "reason", None)
    if isinstance(error, SecureSumError) and reason is not None:
        return UNUSABLE if reason in _DAMAGED else REFUSED
    if isinstance(error, DeploymentError | PartitionError | PrivacyError):
        return REFUSED
    return UNREACHABLE if isinstance(error, EngineError) else UNUSABLE


@contextmanager
def refusing(*, all_errors: bool = False) -> Iterator[None]:
    """Within it an error is printed, and ends the command with its code.

    Args:
        all_errors: whatever is wrong is that the parts do not fit.
    """
    try:
        yield
    except SecureFLError as error:
        code = REFUSED if all_errors else exit_code(error)
        if code == UNUSABLE:
            raise  # `main` says it, and ends so
        err.print(str(error), style="red")
        raise typer.Exit(code) from None
