"""Lines hold fields of a closed list, in their forms, and nothing of what was not meant to be
said.
"""

from __future__ import annotations

import json
import logging
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import FileError, SecureFLError
from secure_fl.operations import logs

SECRET = "correct horse battery staple"


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, object]]]]:
    undo = logs.configure(json=True, path=tmp_path / "log", level="debug")
    yield lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    undo()


Written = Callable[[], list[dict[str, object]]]


def test_a_line_has_time_level_event_and_fields(written: Written) -> None:
    logs.say("round-ended", number=3, place=(2, 1), seconds=1.25, reason=Reason.STALE)
    line = written()[0]
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "info",
        "event": "round-ended",
        "number": 3,
        "place": [2, 1],
        "seconds": 1.25,
        "reason": "stale",
    }


def test_a_field_that_is_not_on_the_list_is_dropped_and_named(written: Written) -> None:
    logs.say("said", site="north", passphrase=SECRET, password=b"bytes", **{SECRET: 1})
    line = written()[0]
    assert line["dropped"] == ["passphrase", "password", "?"]
    assert line["site"] == "north"
    assert SECRET not in json.dumps(line)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("site", "a name with spaces"),
        ("site", "x" * 65),
        ("site", "\x1b[31m"),
        ("site", b"north"),
        ("reason", "a sentence. And another"),
        ("number", "3"),
        ("number", 1 << 70),
        ("seconds", True),
        ("seconds", float("nan")),
        ("seconds", float("inf")),
        ("place", "01"),
        ("place", [0.5]),
        ("sites", ["north", SECRET]),
        ("versions", {"torch": SECRET + "\n"}),
        ("versions", [1]),
    ],
)
def test_a_value_of_another_form_is_dropped(written: Written, field: str, value: object) -> None:
    logs.say("said", **{field: value})
    assert written()[0]["dropped"] == [field]
    assert field not in written()[0]


def test_an_event_is_a_word(written: Written) -> None:
    logs.say(SECRET)
    assert written()[0]["event"] == "unnamed"


def test_long_lists_are_cut(written: Written) -> None:
    logs.say("said", counts=list(range(1000)))
    assert written()[0]["counts"] == list(range(64))


def test_of_an_error_only_type_code_field_and_place(written: Written) -> None:
    try:
        raise RefusedError(Reason.STALE, SECRET, "passphrase file\n", SECRET, SECRET)
    except RefusedError as error:
        logs.failed("broke", error)
    line = written()[0]
    assert line["error"] == "RefusedError"
    assert (line["code"], line["field"]) == ("secure-sum", "passphrase file?")
    assert line["reason"] == "stale"
    assert SECRET not in json.dumps(line)


def test_of_a_foreign_error_only_the_type_and_our_place(written: Written, tmp_path: Path) -> None:
    try:
        logs.configure(level=SECRET)
    except KeyError as error:
        logs.failed("broke", error)
    line = written()[-1]
    assert line["error"] == "KeyError"
    assert str(line["where"]).startswith("secure_fl/operations/logs.py:")
    assert SECRET not in json.dumps(line)


def test_what_others_log_loses_its_text(written: Written) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("grpc._server").exception("calling %s", SECRET)
    logging.getLogger("secure_fl.somewhere").warning("%s", SECRET)
    logging.getLogger("grpc").info("%s", SECRET)
    first, second = written()
    assert (first["event"], first["logger"], first["error"]) == (
        "foreign",
        "grpc._server",
        "ValueError",
    )
    assert second["logger"] == "secure_fl.somewhere"
    assert SECRET not in json.dumps([first, second])


def test_what_nobody_caught_is_a_line(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert [line["event"] for line in written()] == ["thread-crashed", "crashed"]
    assert [line["error"] for line in written()] == ["ValueError"] * 2
    shown = capsys.readouterr()
    assert SECRET not in json.dumps(written()) + shown.out + shown.err


def test_lines_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    undo = logs.configure(level="warning")
    logs.say("quiet", site="north")
    logs.say("loud", logging.WARNING, site="north", place=[0, 1], field="a b")
    undo()
    assert capsys.readouterr().err.split(" ", 1)[1] == (
        'warning loud site=north place=[0,1] field="a b"\n'
    )


def test_the_file_is_its_owners_and_begun_anew_when_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "log"
    undo = logs.configure(path=path)
    logs.say("one")
    path.rename(tmp_path / "log.1")
    logs.say("two")
    undo()
    logs.say("three")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "one" in (tmp_path / "log.1").read_text()
    assert path.read_text().count("\n") == 1


def test_a_file_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        logs.configure(path=tmp_path / "missing" / "log")


def test_what_was_configured_is_undone() -> None:
    before = logging.getLogger().handlers[:], sys.excepthook, threading.excepthook
    logs.configure()()
    assert (logging.getLogger().handlers, sys.excepthook, threading.excepthook) == before


def test_no_field_takes_free_text() -> None:
    """Whatever a field is for, a sentence with its punctuation fits none."""
    for name, form in logs.FIELDS.items():
        assert form(f"{SECRET}, she said; 'well'!") is logs._UNFIT, name


def test_every_typed_error_can_be_told(written: Written) -> None:
    kinds = [SecureFLError, *SecureFLError.__subclasses__()]
    for kind in kinds:
        if kind.__init__ is SecureFLError.__init__:
            logs.failed("broke", kind(SECRET, "field", SECRET, SECRET))
    assert len(written()) > 5
    assert all(line["field"] == "field" and "dropped" not in line for line in written())
