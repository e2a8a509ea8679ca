"""What a server of a large round keeps beside memory: it reads what was written, and takes none."""

from __future__ import annotations

import gc
import tracemalloc
import warnings
from tempfile import SpooledTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.secure_sum import spool
from secure_fl.secure_sum.spool import Log, Table, settled


@pytest.mark.parametrize("size", [3, 5000])
def test_cells_are_what_was_written_and_no_other(size: int) -> None:
    table = Table(9, 7, size)
    for row, column in [(0, 0), (8, 6), (4, 1), (4, 5)]:
        table.cell(row, column)[:] = bytes([1 + row, column]).ljust(size, b"x")
    assert table.cells(4) == [bytes([5, column]).ljust(size, b"x") for column in (1, 5)]
    assert [table.filled(row) for row in range(9)] == [1, 0, 0, 0, 2, 0, 0, 0, 1]
    assert bytes(table.row(8)[-size:]) == bytes([9, 6]).ljust(size, b"x")


def test_a_large_table_is_not_in_memory() -> None:
    tracemalloc.start()
    try:
        table = Table(256, 80, 400)
        for row in range(256):
            table.row(row)[:] = bytes([7]) * 32_000
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 100_000
        assert table.filled(255) == 80
    finally:
        tracemalloc.stop()


def test_where_no_file_is_to_be_had_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(spool, "TemporaryFile", full)
    table = Table(256, 80, 40)
    table.cell(3, 3)[:] = b"a" * 40
    assert table.cells(3) == [b"a" * 40]


@pytest.mark.parametrize("size", [10, 1 << 19])
def test_a_settled_part_stays_when_the_spool_is_gone(size: int) -> None:
    room = spool.spool(size)
    room[2:5] = b"abc"
    part = settled(room[2:5])
    del room
    gc.collect()
    assert bytes(part) == b"abc"
    assert memoryview(part).readonly


@given(st.lists(st.binary(max_size=40_000), max_size=8), st.lists(st.binary(max_size=9)))
def test_a_log_gives_back_what_it_took_in_order(first: list[bytes], more: list[bytes]) -> None:
    log = Log()
    log.extend(first)
    assert list(log) == first
    log.extend(more)
    assert list(log) == [*first, *more]
    assert len(log) == len(first) + len(more)


def test_a_log_in_a_cycle_closes_its_file_without_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Finalisers of a cycle run in the order in which its objects were made, or in none: here the
    file is older than its log.
    """
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(3):
            file = SpooledTemporaryFile(max_size=1 << 16)  # noqa: SIM115
            monkeypatch.setattr(spool, "SpooledTemporaryFile", lambda made=file, **_: made)
            log = Log()
            log.extend([bytes(1 << 17)])
            holder: list[object] = [log]
            holder.append(holder)
            monkeypatch.undo()
            del log, holder, file
            gc.collect()
    assert [str(each.message) for each in heard] == []
