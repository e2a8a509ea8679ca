"""atheris runner for the parsers of the secure sum.

    pip install atheris; python tests/fuzz/fuzz_envelope.py -max_total_time=600

Options are libFuzzer's. What it finds is written to the current folder as `crash-*`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Run until stopped, or as long as the options say."""
    import atheris

    with atheris.instrument_imports(
        include=["secure_fl.crypto", "secure_fl.he", "secure_fl.secure_sum"]
    ):
        from targets import make_target

    target, seeds = make_target()
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, "-max_len=40000", corpus], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
