"""Structured logs: one line an event, of public facts from a closed list.

    2026-11-30T18:00:00.123Z info round-ended number=3 outcome=done seconds=4.2
    {"time": "2026-11-30T18:00:00.123Z", "level": "info", "event": "round-ended", "number": 3, …}

**Guarantee.** A line holds fields of `FIELDS` alone, each in the form that its name has there;
anything else is left out, and `dropped` names it. Of an exception stand there its type, its code
and field where it is one of ours, and the place in our code where it passed; never its text or
value, and never a traceback. What other libraries log is a line with the library's name, without
their text. A line that cannot be written stops nobody.

**Assumes.** Whoever logs a name gives a name: a secret that is spelled like one is not told from
it.

**Not covered.** What is printed past `logging`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import logging.handlers
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from secure_fl.errors import SecureFLError
from secure_fl.files import PRIVATE, file_error

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MOST = 64
"""Items of a list."""
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WORD = re.compile("[A-Za-z?][A-Za-z0-9_.-]{0,63}")
_TEXT = re.compile(r"[A-Za-z0-9_.:/?\[\] -]{1,120}")
_LOG = logging.getLogger("secure_fl.operations")
_UNFIT = object()
Form = Callable[[object], Any]


def _matching(pattern: re.Pattern[str]) -> Form:
    def form(value: object) -> object:
        fits = isinstance(value, str) and pattern.fullmatch(value)
        return str(value) if fits else _UNFIT  # of a word in an enumeration, its text

    return form


def _whole(value: object) -> object:
    return int(value) if isinstance(value, int) and abs(value) < 1 << 63 else _UNFIT


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
        return _UNFIT
    return round(float(value), 6) if value == value else _UNFIT


def _each(form: Form) -> Form:
    def forms(value: object) -> object:
        if not isinstance(value, list | tuple | set | frozenset):
            return _UNFIT
        found = [form(one) for one in (sorted(value) if isinstance(value, set) else value)]
        return _UNFIT if _UNFIT in found else found[:_MOST]

    return forms


_name, _word, _text = map(_matching, (_NAME, _WORD, _TEXT))


def _versions(value: object) -> object:
    if not isinstance(value, Mapping) or len(value) > _MOST:
        return _UNFIT
    found = {_name(key): _text(one) for key, one in value.items()}
    return _UNFIT if _UNFIT in (*found, *found.values()) else found


def _fields(form: Form, names: str) -> dict[str, Form]:
    return dict.fromkeys(names.split(), form)


FIELDS: dict[str, Form] = {
    **_fields(_name, "site peer party sender server federation digest file version"),
    **_fields(_word, "role phase direction stage outcome reason error code kind logger transport"),
    **_fields(_text, "field where"),
    **_fields(_whole, "number attempt step round count bytes messages members port most days"),
    **_fields(_whole, "survivors revision"),
    **_fields(_number, "seconds epsilon budget"),
    **_fields(_each(_whole), "place pools counts"),
    **_fields(_each(_name), "parties sites missed left_out"),
    **_fields(_each(_word), "dropped"),
    "versions": _versions,
}
"""Every field that a line may have, and the form that its value must have."""


def say(event: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Log an event.

    Args:
        event: a word for it, with dashes.
        level: of `logging`.
        fields: of `FIELDS`; others are left out, and named.
    """
    if _LOG.isEnabledFor(level):
        word = event if _word(event) is not _UNFIT else "unnamed"
        _LOG.log(level, word, extra={"public": _cleaned(fields)})


def failed(event: str, error: BaseException, level: int = logging.ERROR, **fields: object) -> None:
    """Log that something went wrong; of the error nothing but its kind and its place."""
    say(event, level, **fields, **_told(error, error.__traceback__))


def configure(
    json: bool = False,
    path: Path | None = None,
    level: str = "info",
) -> Callable[[], None]:
    """Write logs from now on; also what nobody caught, in place of its traceback.

    Args:
        json: one JSON object a line.
        path: of a file, for its owner alone, which is added to; standard error where none is given.
            Whoever rotates it moves it away: it is begun anew.
        level: of `LEVELS`, of what is written; of other libraries' lines only warnings are.

    Returns:
        What undoes it.

    Raises:
        FileError: the file cannot be written.
    """
    handler = _handler(path, as_json=json)
    root, ours = logging.getLogger(), logging.getLogger("secure_fl")
    before = ours.level, ours.propagate, sys.excepthook, threading.excepthook
    for logger in (root, ours):
        logger.addHandler(handler)
    ours.setLevel(LEVELS[level])
    ours.propagate = False
    sys.excepthook, threading.excepthook = _uncaught, _uncaught_in_thread

    def undo() -> None:
        for logger in (root, ours):
            logger.removeHandler(handler)
        level, ours.propagate, sys.excepthook, threading.excepthook = before
        ours.setLevel(level)
        handler.close()

    return undo


def _handler(path: Path | None, *, as_json: bool) -> logging.Handler:
    """What writes lines: all of ours, and warnings of others."""
    try:
        handler = _Quiet(sys.stderr) if path is None else _File(path)
    except OSError as error:
        raise file_error(error, path or Path("stderr"), "written") from None
    handler.setFormatter(_Line(as_json=as_json))
    handler.addFilter(lambda each: each.name == _LOG.name or each.levelno >= logging.WARNING)
    return handler


def _cleaned(fields: Mapping[str, object]) -> dict[str, object]:
    """Fields in their forms; what has none, or another, is named."""
    found = {name: FIELDS[name](value) for name, value in fields.items() if name in FIELDS}
    kept = {name: value for name, value in found.items() if value is not _UNFIT}
    dropped = [name if _word(name) is not _UNFIT else "?" for name in fields if name not in kept]
    return {**kept, "dropped": dropped[:_MOST]} if dropped else kept


def _told(error: BaseException, trace: TracebackType | None) -> dict[str, object]:
    """What a line may say of an exception."""
    found: dict[str, object] = {"error": type(error).__name__}
    if isinstance(error, SecureFLError):
        found |= {"code": error.code, "field": _plain(error.field)}
        reason: object = getattr(error, "reason", None)
        found |= {} if reason is None else {"reason": reason}
    frames = [frame for frame in traceback.extract_tb(trace) if "secure_fl" in frame.filename]
    if frames:
        place = frames[-1]
        inside = place.filename[place.filename.rindex("secure_fl") :]
        found["where"] = f"{inside}:{place.lineno}"
    return found


def _plain(text: str) -> str:
    """A setting's name, in the letters that a line has, and not longer."""
    return "".join(letter if _TEXT.fullmatch(letter) else "?" for letter in text[:120]) or "?"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    say("crashed", logging.ERROR, **_told(error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        say("thread-crashed", logging.ERROR, **_told(args.exc_value, args.exc_traceback))


class _Line(logging.Formatter):
    """A record as one line."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields: object = getattr(record, "public", None)
        event = record.msg
        if record.name != _LOG.name or not isinstance(fields, dict):
            event, fields = "foreign", _cleaned({"logger": record.name, **_kind(record)})
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        time = when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"
        level = record.levelname.lower()
        if self._as_json:
            return json.dumps({"time": time, "level": level, "event": event, **fields})
        return " ".join([time, level, str(event), *(f"{k}={_short(v)}" for k, v in fields.items())])


def _kind(record: logging.LogRecord) -> dict[str, object]:
    error = record.exc_info[1] if record.exc_info else None
    return {} if error is None else {"error": type(error).__name__}


def _short(value: object) -> str:
    """A value without spaces around it that would end it."""
    if isinstance(value, str) and " " not in value:
        return value
    return json.dumps(value, separators=(",", ":"))


class _Quiet(logging.StreamHandler[TextIO]):
    """To standard error; whoever cannot be written to is not told so with a traceback."""

    def handleError(self, _: logging.LogRecord) -> None:  # noqa: N802
        pass


class _File(logging.handlers.WatchedFileHandler):
    """Into a file that its owner alone reads; begun anew where it was moved away."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="ascii")

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def _open(self) -> Any:
        def private(name: str, flags: int) -> int:
            return os.open(name, flags, PRIVATE)

        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=private)

    def handleError(self, _: logging.LogRecord) -> None:  # noqa: N802
        pass
