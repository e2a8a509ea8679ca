"""Peak extra memory of one call, gradient included, inputs not: each in a fresh process.

The processes are forked from one that has imported torch and computed nothing. On Linux the peak is
the system's own record of resident memory (`VmHWM`, reset after a small warm-up), elsewhere the
growth of `ru_maxrss`. Freed blocks go back to the system at once, so that what is counted was in
use. On a GPU it is torch's record, in this process.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

from bench.kernels.case import MIB, Case, Kernel, Provider
from bench.kernels.measure import call
from bench.kernels.registry import kernel as kernel_named

_SMALL_ROWS = 512
_PROCESS = Path("/proc/self")
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc maps blocks above 64 KiB and unmaps them when they are freed, instead of keeping them
for later.
"""
_IMPORTED = ["torch._dynamo", "bench.kernels.memory"]


class MemoryUnknownError(RuntimeError):
    """The measuring process failed."""


def peak_mib(kernel: Kernel, provider: Provider, case: Case, seconds: float = 120.0) -> float:
    """Peak extra memory in MiB.

    Args:
        seconds: how long the process may take.

    Raises:
        MemoryUnknownError: it failed or took longer.
    """
    if case.device != "cpu":
        return _gpu_peak(kernel, provider, case)
    receive, send = _server().Pipe(duplex=False)
    process = _server().Process(target=_answer, args=(send, kernel.name, provider.key, case))
    process.start()
    send.close()
    try:
        found = receive.recv() if receive.poll(seconds) else f"no answer in {seconds:.0f} s"
    except EOFError:
        found = "the process ended without an answer"
    process.kill()
    process.join()
    if isinstance(found, str):
        raise MemoryUnknownError(found)
    return float(found)


@cache
def _server() -> ForkServerContext:
    """Makes processes; started with the allocator's settings in its environment."""
    from multiprocessing import forkserver

    context = get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    before = {name: os.environ.get(name) for name in ALLOCATOR}
    os.environ.update(ALLOCATOR)
    forkserver.ensure_running()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    return context


def _answer(send: Connection, kernel: str, provider: tuple[str, str], case: Case) -> None:
    """Runs in the fresh process."""
    try:
        chosen = kernel_named(kernel)
        send.send(grown_mib(chosen, chosen.provider(*provider), case))
    except Exception as error:
        send.send(f"{type(error).__name__}: {error}")


def _gpu_peak(kernel: Kernel, provider: Provider, case: Case) -> float:
    inputs, function = kernel.inputs(case), provider.make(case)
    with provider.active(case.threads):
        call(function, inputs, kernel.backward)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(function, inputs, kernel.backward)
    return (torch.cuda.max_memory_allocated() - before) / MIB


def grown_mib(kernel: Kernel, provider: Provider, case: Case) -> float:
    """Peak extra memory of one call in this process, after a warm-up at a small size (a compiled
    program: at its own).
    """
    small = case if provider.compiles else replace(case, rows=min(case.rows, _SMALL_ROWS))
    with provider.active(case.threads):
        function = provider.make(case)
        leaves = [z.requires_grad_(kernel.backward) for z in kernel.inputs(case)]
        call(
            function if provider.compiles else provider.make(small),
            kernel.inputs(small),
            kernel.backward,
        )
        before = settle()
        value = function(*leaves)
        if kernel.backward:
            value.backward(torch.ones_like(value))
        return (peak() - before) / MIB


def settle() -> int:
    """Give back what is free, forget the peak so far, and say what is resident."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except (AttributeError, OSError):
        return _largest()


def peak() -> int:
    """Largest resident size so far, in bytes."""
    try:
        return _status("VmHWM")
    except OSError:
        return _largest()


def _status(name: str) -> int:
    lines = (_PROCESS / "status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _largest() -> int:
    """`ru_maxrss`, in bytes on macOS and in KiB elsewhere."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
