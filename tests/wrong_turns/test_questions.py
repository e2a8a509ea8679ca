"""What is asked of a run that is over, was cut short, or never was."""

from __future__ import annotations

import numpy as np
import pytest
from wrong_turns.finished_runs import ROWS, SICK, Runs, X
from wrong_turns.turns import Turn, named

from secure_fl import (
    assign_pool,
)
from secure_fl.sklearn import FederatedClassifier, SecureFLClassifier, SecureFLEncoder

WROTE = "name the folder that `secure-fl run` wrote"
SHAPE = "the shape the federation was trained on"
NAMES = "site 0, site 1, site 2, site 3"
READ = r"\.npz, \.npy, \.csv"
QUESTIONS = [
    Turn(
        "fewer columns",
        lambda at: at.done.predict(X[:, :3]),
        "x",
        "(3,)",
        SHAPE,
        (str(ROWS),),
        lambda at: at.done.predict(X),
    ),
    Turn(
        "one example alone",
        lambda at: at.done.predict(X[0]),
        "x",
        "()",
        SHAPE,
        mended=lambda at: at.done.predict(X[:1]),
    ),
    Turn("no example", lambda at: at.done.predict(X[:0]), "examples.x", "2 axes", "N at least 1"),
    Turn(
        "NaN",
        lambda at: at.done.predict(X * np.nan),
        "examples.x",
        "not shown",
        "impute",
        (str(ROWS),),
    ),
    Turn("nothing", lambda at: at.done.predict(None), "examples", "NoneType", "arrays or tensors"),
    Turn(
        "a file's name",
        lambda at: at.done.predict("new.csv"),
        "examples",
        "str",
        "read the file first",
    ),
    Turn(
        "a client by a name that is none",
        lambda at: at.done.predict(X, "site 9"),
        "client",
        "site 9",
        NAMES,
        mended=lambda at: at.done.predict(X, "site 3"),
    ),
    Turn(
        "a client by a number that is none",
        lambda at: at.done.predict(X, 9),
        "client",
        "9",
        "a number below 4",
        mended=lambda at: at.done.predict(X, 3),
    ),
    Turn("several clients", lambda at: at.done.predict(X, ["site 1"]), "client", "list", NAMES),
    Turn(
        "a pool that is none",
        lambda at: at.done.predict(X, pool=7),
        "pool",
        "7",
        "from 0 to 1",
        mended=lambda at: at.done.predict(X, pool=1),
    ),
    Turn(
        "a pool in words",
        lambda at: at.done.predict(X, pool="first"),
        "pool",
        "first",
        "a number from 0 to 1",
    ),
    Turn("client and pool", lambda at: at.done.predict(X, 0, pool=1), "pool", "1", "one of them"),
    Turn(
        "a prediction without pools",
        lambda at: at.bare.predict(X),
        "pools.enabled",
        "False",
        r"embed\(x\)",
        mended=lambda at: at.bare.embed(X),
    ),
    Turn(
        "a pool without pools",
        lambda at: at.bare.assign(X),
        "pools.enabled",
        "False",
        r"pools\.enabled = true",
    ),
    Turn(
        "labels of elsewhere",
        lambda at: at.done.assign(X, ["mad"] * ROWS),
        "y",
        "not shown",
        "use the run's: sick, well",
        ("mad",),
    ),
    Turn(
        "fewer labels",
        lambda at: at.done.assign(X, ["sick"] * 4),
        "examples.y",
        "another length",
        r"the shape \(N,\)",
    ),
    Turn(
        "features of a stranger",
        lambda at: at.done.embed(X, client="nobody"),
        "client",
        "nobody",
        NAMES,
    ),
    Turn("features of text", lambda at: at.done.embed([["a"] * 5]), "examples.x", "<U1", "float32"),
    Turn(
        "a newcomer's missing file",
        lambda at: assign_pool(at / "done", at / "no.npz"),
        "file",
        "no.npz",
        READ,
    ),
    Turn(
        "a newcomer's notebook",
        lambda at: assign_pool(at / "done", at / "file"),
        "file",
        "file",
        READ,
    ),
    Turn(
        "a newcomer of another shape",
        lambda at: assign_pool(at / "done", at.npz(x=X[:, :2])),
        "x",
        "(2,)",
        SHAPE,
    ),
    Turn(
        "a newcomer's labels",
        lambda at: assign_pool(at / "done", at.npz(x=X, y=np.full(ROWS, "mad"))),
        "y",
        "not shown",
        "sick, well",
        ("mad",),
    ),
    Turn(
        "scikit-learn, of nothing",
        lambda _: SecureFLEncoder("never").transform(X),
        "run folder",
        "never",
        WROTE,
    ),
    Turn(
        "scikit-learn, no folder",
        lambda _: SecureFLClassifier(None).predict(X),
        "run folder",
        "NoneType",
        "runs/mine",
    ),  # type: ignore[arg-type]
    Turn(
        "scikit-learn, a stranger",
        lambda at: SecureFLClassifier(at / "done", client="nobody").predict(X),
        "client",
        "nobody",
        NAMES,
    ),
    Turn(
        "scikit-learn, other columns",
        lambda at: SecureFLEncoder(at / "done").transform(X[:, :2]),
        "x",
        "(2,)",
        SHAPE,
    ),
    Turn(
        "scikit-learn, clients",
        lambda _: FederatedClassifier().fit(X, SICK, clients=[1, 2]),
        "X.client",
        "another length",
        r"the shape \(N,\)",
    ),
    Turn(
        "scikit-learn, a setting",
        lambda _: FederatedClassifier({"pools": {"cuont": 1}}).fit(X, SICK),
        "pools.cuont",
        "1",
        r"pools\.count",
    ),
]


@pytest.mark.parametrize(**named(QUESTIONS))
def test_questions(turn: Turn, runs: Runs) -> None:
    turn.taken(runs)
