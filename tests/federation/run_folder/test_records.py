"""Lines of `metrics.jsonl` and `summary.json` are records: what they name is written and read, and
nothing else.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from secure_fl.config import FederationConfig
from secure_fl.errors import RunFolderError
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.metrics import Cut, Metrics, RoundRecord, Spent, SummedTest
from secure_fl.federation.run_folder.summary import Cost, Summary
from secure_fl.federation.run_folder.tags import ANY, BELOW, EXPERIMENTER, rules_of
from secure_fl.files import parse_json
from secure_fl.pools.monitor import pool_health
from secure_fl.privacy.chain import Mark
from secure_fl.records import document

LINE = RoundRecord(
    "cluster",
    3,
    4,
    10,
    20,
    1.5,
    Metrics(
        loss=0.5,
        pools=pool_health([3, 1]),
        tested=(SummedTest(3, 0.5, 0.1, 1.0), SummedTest(0, None, None, None)),
        choices={"0": 1},
        accuracies={"0": None},
        cut=Cut(1, 0.25),
        refused=("a",),
        privacy=Spent(1.0, 1e-5, "example"),
        ledger=Mark(1, "00"),
    ),
    0.5,
)
DONE = Summary(
    name="ward",
    status="finished",
    seed=0,
    unprotected=(),
    clients=4,
    costs={"cluster": Cost(1, 2, 3)},
    versions={},
)


def read(kind: type[Any], value: object) -> Any:
    return parse_json(json.dumps(value).encode(), kind, field="x", value="x", remedy="x")


def run_in(folder: Path, *lines: object, summary: object = None) -> RunFolder:
    """A run's folder with these lines of `metrics.jsonl`, and perhaps a summary."""
    made = RunFolder.new(folder)
    made.begin(FederationConfig())
    made.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if summary is not None:
        made.summary.write_text(json.dumps(summary))
    return made


@pytest.mark.parametrize("record", [LINE, DONE], ids=["line", "summary"])
def test_what_is_written_reads_back(record: object) -> None:
    assert read(type(record), document(record)) == record


def test_what_a_round_does_not_tell_is_left_out_and_what_has_no_value_is_null() -> None:
    written = document(LINE)
    assert "accuracy" not in written["metrics"]
    assert written["metrics"]["tested"][1]["mean_loss"] is None
    assert "seconds" not in document(replace(LINE, seconds=None))


def test_a_line_of_an_earlier_version_which_wrote_null_for_what_is_unknown_is_read() -> None:
    old = document(LINE)
    old["metrics"] |= {"accuracy": None, "test_loss": None}
    assert read(RoundRecord, dict(reversed(old.items()))) == LINE


@pytest.mark.parametrize("change", [{"color": 1}, {"clients": "4"}, {"metrics": {"color": 1}}])
def test_a_field_that_a_line_cannot_have_is_refused_by_file_and_line(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = run_in(tmp_path / "run", document(LINE), {**document(LINE), **change})
    with pytest.raises(RunFolderError, match="is damaged") as caught:
        folder.read_metrics()
    assert (caught.value.field, caught.value.value) == ("metrics.jsonl", "line 2")


@pytest.mark.parametrize("gone", ["clients", "costs"])
def test_a_summary_without_a_field_or_with_one_too_many_is_refused_by_its_file(
    tmp_path: Path, gone: str
) -> None:
    less = {name: value for name, value in document(DONE).items() if name != gone}
    for number, wrong in enumerate((less, {**document(DONE), "color": 1})):
        folder = run_in(tmp_path / str(number), summary=wrong)
        with pytest.raises(RunFolderError, match="is damaged") as caught:
            folder.read_summary()
        assert caught.value.field == "summary.json"


def untagged(kind: Any, rule: Any, where: str) -> Iterator[str]:
    """Fields of a type that have no tag, and tags of a record's names that no field has."""
    inner = [each for each in (kind, *typing.get_args(kind)) if is_dataclass(each)]
    if rule is None:
        yield where
    elif isinstance(rule, str) or BELOW in rule:
        return
    elif typing.get_origin(kind) is Mapping:
        for name, each in rule.items():
            yield from untagged(typing.get_args(kind)[1], each, f"{where}/{name}")
    elif inner:
        hints = {name: hint for each in inner for name, hint in typing.get_type_hints(each).items()}
        hints.pop("__pydantic_config__", None)
        for name, hint in hints.items():
            yield from untagged(hint, rule.get(name, rule.get(ANY)), f"{where}/{name}")
        yield from (f"{where}: no field {name}" for name in set(rule) - set(hints) - {ANY})


@pytest.mark.parametrize("unit", ["none", "example"])
def test_every_field_of_a_record_has_a_tag_and_every_tag_a_field(unit: str) -> None:
    rules = rules_of(FederationConfig(privacy={"unit": unit}))
    for file, kind in (("metrics.jsonl", RoundRecord), ("summary.json", Summary)):
        assert list(untagged(kind, rules[file], file)) == []
    less = {**rules["metrics.jsonl"], "metrics": {"loss": EXPERIMENTER}}  # type: ignore[dict-item]
    assert "metrics.jsonl/metrics/accuracy" in list(untagged(RoundRecord, less, "metrics.jsonl"))
