"""Runs many lines of `secure-fl` in one process, since each new one takes seconds to start; prints
what came of each as JSON.

Lines come as JSON on stdin: a list of lists of arguments.
"""

from __future__ import annotations

import io
import json
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout


def typed(arguments: list[str]) -> tuple[int, str]:
    """Exit code, and what stands in the terminal then."""
    from secure_fl.cli.main import main

    said, before = io.StringIO(), sys.argv
    sys.argv = ["secure-fl", *arguments]
    try:
        with redirect_stdout(said), redirect_stderr(said):
            main()
    except SystemExit as left:
        return int(left.code or 0), said.getvalue()
    except BaseException:
        return 1, said.getvalue() + traceback.format_exc()
    finally:
        sys.argv = before
    return 0, said.getvalue()


if __name__ == "__main__":
    answers = [typed(line) for line in json.load(sys.stdin)]
    print(json.dumps(answers))
