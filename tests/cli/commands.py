"""Commands as their users type them, each in a process of its own that starts at once: forked from
one that has imported the libraries, which take seconds.

It reads one line of JSON at a time from standard input, `{"words", "folder", "variables", "said"}`,
runs the command in a fork, whose output goes to the files `said.out` and `said.err`, and answers
with a line: the command's exit code. It ends with its input.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def secure_fl(
    *words: object, code: int = 0, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `secure-fl`, check its exit code, and that no traceback reaches the user."""
    given = [str(word) for word in words]
    done = _prepared().run(given, cwd or Path.cwd(), {**os.environ, "NO_COLOR": "1", **variables})
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


class Prepared:
    """The process that commands are forked from."""

    def __init__(self) -> None:
        path = os.pathsep.join(one for one in sys.path if one)
        line = [sys.executable, "-c", "from cli.commands import serve; serve()"]
        self._process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
            text=True,
            bufsize=1,
        )

    def run(
        self, words: list[str], folder: Path, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """One command, to its end."""
        pipes = self._process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        with tempfile.TemporaryDirectory() as kept:
            said = Path(kept) / "said"
            asked = {"words": words, "folder": str(folder), "said": str(said)}
            print(json.dumps(asked | {"variables": dict(variables)}), file=pipes.stdin, flush=True)
            code = int(pipes.stdout.readline())
            texts = (said.with_suffix(end).read_text("utf-8") for end in (".out", ".err"))
            return subprocess.CompletedProcess(words, code, *texts)


@cache
def _prepared() -> Prepared:
    """One for all tests of a process."""
    return Prepared()


def serve() -> None:
    """Of the process that commands are forked from; a fork leaves by its command's end."""
    import dp_accounting  # noqa: F401
    import kornia  # noqa: F401
    import opacus  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import tenseal  # noqa: F401

    import secure_fl.run  # noqa: F401

    gc.freeze()
    for line in sys.stdin:
        number = os.fork()
        if not number:
            _become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


def _become(asked: Mapping[str, Any]) -> None:
    """Be the command, as if somebody had typed it."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, end in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(asked["said"] + end, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["variables"])
    sys.argv = ["secure-fl", *asked["words"]]
    code: object = 0
    try:
        runpy.run_module("secure_fl.cli.main", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # an interpreter that tidies up touches, and so copies, all that it shares with its parent
    os._exit(code if isinstance(code, int) else int(code is not None))
