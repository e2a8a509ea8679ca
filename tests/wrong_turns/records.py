"""Made-up records of sites."""

from __future__ import annotations

import numpy as np

ROWS = 36
X = np.random.default_rng(0).normal(size=(ROWS, 5))
Y = np.arange(ROWS) % 2
WHO = [f"site {i % 4}" for i in range(ROWS)]
CSV = "age,sex,site,label\n" + "\n".join(f"{i},{i % 2},s{i % 4},{'ab'[i % 2]}" for i in range(ROWS))
SECRET = "4711.25"
HELD = ("site", "s1", SECRET, str(ROWS))
"""What no message about examples may show."""
