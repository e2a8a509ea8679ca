"""`secure-fl kernels check` and what it is made of: each kind of fault is reported, and ends in
exit code 1.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import StringIO
from types import ModuleType
from typing import Any

import pytest
import torch
import triton
from rich.console import Console
from torch import Tensor

from secure_fl.errors import ConfigError, DependencyError
from secure_fl_kernels import functional
from secure_fl_kernels.gpu.variants import Loop, Variant
from secure_fl_kernels.proof import check, matrix
from secure_fl_kernels.proof.binary import Failure
from secure_fl_kernels.proof.check import Agreement
from secure_fl_kernels.proof.matrix import Job, Verdict
from secure_fl_kernels.proof.targets import TARGETS, Target

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.filterwarnings("ignore:.*will be removed in Click:DeprecationWarning"),
]

GOOD = Agreement("nt_xent", "triton on cpu", "float32", 70, 33, 1e-7, 1e-7, 1e-5)


def judged(*arguments: Any) -> dict[str, Agreement]:
    return {a.function: a for a in check.agreements(*arguments) if a.width == 33}


def test_the_processors_forms_agree() -> None:
    for which in (("reference", "cpu", ("float32",)), ("cpu", "cpu", ("float64",))):
        found = judged(*which)
        assert len(found) == 9
        assert all(agreement.holds for agreement in found.values())
        assert max(agreement.value for agreement in found.values()) > 0, (
            "no form is its own reference"
        )


def test_a_wrong_value_a_wrong_gradient_and_an_exception_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = functional.nt_xent_loss

    def planted(fault: Callable[[Tensor], Tensor]) -> Agreement:
        monkeypatch.setattr(
            functional,
            "nt_xent_loss",
            lambda a, b, t: fault(right(a, b, t)) if a.dtype == torch.float32 else right(a, b, t),
        )
        return judged("reference", "cpu", ("float32",))["nt_xent"]

    def broken(loss: Tensor) -> Tensor:
        raise RuntimeError("out of luck")

    assert planted(lambda loss: loss).holds
    value = planted(lambda loss: loss + 1e-3)
    assert not value.holds
    assert value.gradient < 1e-5 < value.value
    gradient = planted(lambda loss: loss + 1e-3 * (loss - loss.detach()))
    assert not gradient.holds
    assert gradient.value < 1e-5 < gradient.gradient
    failed = planted(broken)
    assert not failed.holds
    assert failed.problem == "RuntimeError: out of luck"
    assert not planted(lambda loss: loss * torch.nan).holds


def test_nan_is_never_outshone_by_a_number() -> None:
    one, nan = torch.ones(3), torch.full((3,), torch.nan)
    for got in ([one, nan], [nan, one]):
        assert check._error(got, [one, one], 1.0) == float("inf")
    assert check._error([], [], 1.0) == 0


@dataclass
class Said:
    """What the command printed, planned to compile and ended with."""

    output: str = ""
    planned: tuple[str, ...] = ()
    ended: BaseException | None = None

    @property
    def code(self) -> int:
        return 0 if self.ended is None else getattr(self.ended, "exit_code", 2)


@pytest.fixture
def command() -> ModuleType:
    return importlib.import_module("secure_fl.cli.kernels")


@pytest.fixture
def run(command: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """The command with canned results, all of them good unless told otherwise."""

    def go(
        *targets: str,
        every: bool = False,
        interpreted: tuple[Agreement, ...] = (GOOD,),
        verdicts: tuple[Verdict, ...] = (),
    ) -> Said:
        variant, page, said = (
            Variant("loss/bf16/128", None, {}, {}, 4, 2, Loop(1, 1, 1)),
            StringIO(),
            Said(),
        )

        def jobs(targets: list[Target], core: bool) -> list[Job]:
            said.planned = (*(target.name for target in targets), f"core={core}")
            return [Job(target, "loss", (variant,)) for target in targets]

        monkeypatch.setattr(
            check,
            "agreements",
            lambda provider, device, dtypes: [replace(GOOD, provider=f"{provider} on {device}")],
        )
        monkeypatch.setattr(check, "interpreted", lambda: iter(interpreted))
        monkeypatch.setattr(matrix, "jobs", jobs)
        monkeypatch.setattr(matrix, "examine", lambda job, snapshot: list(verdicts))
        monkeypatch.setattr(command, "out", Console(file=page, width=200, markup=False))
        try:
            command.check(list(targets), every, every)
        except Exception as error:
            said.ended = error
        said.output = page.getvalue()
        return said

    return go


def test_all_well_is_exit_code_0(run: Callable[..., Said]) -> None:
    said = run()
    assert said.ended is None
    assert "everything holds" in said.output
    assert said.planned == ("sm90", "core=True")


def test_targets_can_be_chosen(run: Callable[..., Said]) -> None:
    assert run("sm86", "gfx942", "sm86").planned == ("sm86", "gfx942", "core=True")
    assert run(every=True).planned == ("sm80", "sm90", "sm100", "gfx942", "core=False")


@pytest.mark.parametrize(
    "fault",
    [{"problem": "OutOfBounds: load [of] 4 bytes"}, {"value": 1.0}, {"gradient": float("nan")}],
)
def test_a_disagreement_is_exit_code_1(run: Callable[..., Said], fault: dict[str, Any]) -> None:
    said = run(interpreted=(GOOD, replace(GOOD, **fault)))
    assert said.code == 1
    assert "WRONG" in said.output
    assert "nt_xent by triton on cpu in float32, 70 rows of 33" in said.output
    assert fault.get("problem", "allowed 1e-05") in said.output


def test_a_finding_is_exit_code_1(run: Callable[..., Said]) -> None:
    failure = Failure(
        Variant("loss/bf16/128", None, {}, {}, 4, 2),
        TARGETS["sm90"],
        "CompilationError: no [such] thing",
    )
    said = run(
        verdicts=(Verdict(failure, None, tuple(matrix.judge(failure, matrix.Snapshot("", {})))),)
    )
    assert said.code == 1
    assert (
        "sm90 loss/bf16/128: not compiled: CompilationError: no [such] thing, allowed a binary"
        in said.output
    )


def test_an_unknown_target_is_refused_before_anything_is_run(run: Callable[..., Said]) -> None:
    said = run("sm91")
    assert isinstance(said.ended, ConfigError)
    assert said.output == ""


def test_an_interpreting_process_is_refused(
    run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    assert isinstance(run().ended, ConfigError)


def test_without_triton_the_processor_is_checked_and_the_remedy_named(
    run: Callable[..., Said], command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secure_fl.errors.find_spec", lambda name: None)
    said = run()
    assert isinstance(said.ended, DependencyError)
    assert "pip install 'secure-fl[triton]'" in str(said.ended)
    assert "cpu on cpu" in said.output
