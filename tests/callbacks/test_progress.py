"""Progress from Python: who sees a bar, who is warned, and that nothing is said where
nobody looks.
"""

from __future__ import annotations

import io

import pytest
from helpers import make_images, tiny_config
from rich.console import Console

from secure_fl import Callback, Federation
from secure_fl.callbacks import LiveProgress, PlainProgress
from secure_fl.callbacks.progress import shown
from secure_fl.federation import RoundRecord
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.finished.summary import unprotected

SHORT = {"pretrain": {"mode": "none"}, "pools": {"start": "random", "rounds": 1}}


def test_nothing_is_said_into_a_pipe_unless_it_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    federation = Federation(tiny_config(**SHORT), data=make_images(120))
    federation.run()
    federation.run(progress=False)
    said = capsys.readouterr()
    assert said.out == said.err == ""
    federation.run(progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    for line in unprotected(federation.config):
        assert f"NOT PROTECTED: {line}" in said.err
    assert "cluster 1/1" in said.err


@pytest.mark.parametrize("seen", ["FORCE_COLOR", "notebook"])
def test_a_bar_is_shown_where_somebody_looks(seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, said = tiny_config(), io.StringIO()

    def console(**settings: object) -> Console:
        return Console(
            file=said,
            force_terminal=seen != "notebook",
            force_jupyter=seen == "notebook",
            width=200,
        )

    monkeypatch.setattr("secure_fl.callbacks.progress.Console", console)
    monkeypatch.setattr("rich.live.Live.refresh", lambda self: None)
    with shown(None, config) as bars:
        assert [type(bar) for bar in bars] == [LiveProgress]
    with shown(False, config) as bars:
        assert bars == []
    if seen != "notebook":
        assert "NOT PROTECTED" in said.getvalue()


def test_bars_name_the_client_that_replied() -> None:
    said = io.StringIO()
    with LiveProgress(Console(file=said, force_terminal=True, width=160, highlight=False)) as bar:
        bar.on_phase("cluster", 2, 0)
        bar.on_reply("[bold]ward 7[/bold]")
        bar.on_client(1, 4)
        bar.on_round(RoundRecord("cluster", 1, 4, 0, 0, 1.0, Metrics(loss=0.5)))
        bar._progress.refresh()
    assert "[bold]ward 7[/bold]" in said.getvalue()
    assert "loss 0.500" in said.getvalue()


def test_lines_of_a_resumed_phase_estimate_by_the_rounds_made_here() -> None:
    said = io.StringIO()
    lines = PlainProgress(Console(file=said, width=160))
    lines.on_phase("cluster", 10, 8)
    lines.on_round(RoundRecord("cluster", 9, 4, 0, 0, 1.0))
    assert "cluster 9/10" in said.getvalue()
    assert "left 0:00" in said.getvalue()


@pytest.mark.parametrize("experiments", [True, False])
def test_names_are_told_where_the_experimenter_may_read_them(experiments: bool) -> None:
    heard: list[str] = []

    class Ear(Callback):
        def on_reply(self, client: str) -> None:
            heard.append(client)

    Federation(
        tiny_config(**SHORT, evaluate={"enabled": experiments}),
        data=make_images(120),
        callbacks=Ear(),
    ).run()
    assert set(heard) == ({"0", "1", "2", "3"} if experiments else set())


@pytest.mark.parametrize(("width", "bar"), [(40, False), (120, True)])
def test_a_narrow_terminal_keeps_the_numbers(width: int, bar: bool) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with LiveProgress(console) as progress:
        progress.on_phase("pretrain", 20, 0)
        progress.on_client(7, 12)
        progress.on_round(RoundRecord("pretrain", 20, 12, 0, 0, 1.0, Metrics(loss=1.25)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "20/20" in shown
    assert "/12" in shown
    assert "loss 1.250" in shown
    assert ("━" in shown) == bar


def test_a_phase_that_ends_before_its_last_round_says_so() -> None:
    console = Console(file=io.StringIO(), width=120)
    lines = PlainProgress(console)
    lines.on_phase("sketch", 16, 0)
    lines.on_round(RoundRecord("sketch", 6, 12, 0, 0, 1.0))
    lines.on_phase("cluster", 3, 0)
    lines.on_round(RoundRecord("cluster", 3, 12, 0, 0, 1.0))
    lines.on_phase("evaluate", 1, 0)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("has settled") == 1
    assert "sketch has settled after 6 of at most 16 rounds" in shown
