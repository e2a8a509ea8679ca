"""What is made of a finished run is made of whole files: a run that lost something is refused, and
nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import make_images, tiny_config

from secure_fl import Federation
from secure_fl.errors import SecureFLError
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.finished.artifacts import load_card, model_files


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "run"
    config = tiny_config(pretrain={"rounds": 1}, pools={"rounds": 2}, evaluate={"enabled": False})
    Federation(config, data=make_images(60)).run(folder)
    return folder


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "missing": lambda _: b"",
    "empty": lambda _: b"",
    "half": lambda good: good[: len(good) // 2],
    "something else": lambda _: b"{}",
}


@pytest.mark.parametrize("name", ["encoder.safetensors", "pools.safetensors"])
@pytest.mark.parametrize("how", DAMAGE)
def test_models_that_are_not_whole_are_not_handed_out(how: str, name: str, run: Path) -> None:
    file = run / "model" / name
    good = file.read_bytes()
    file.write_bytes(DAMAGE[how](good))
    if how == "missing":
        file.unlink()
    try:
        with pytest.raises(SecureFLError, match=name):
            model_files(run)
    finally:
        file.write_bytes(good)
    assert model_files(run)[name] == good


def test_a_configuration_that_was_emptied_is_not_taken_for_one_of_defaults(
    run: Path, tmp_path: Path
) -> None:
    """Without privacy, that is: what is said of the run would be said of another one."""
    pytest.importorskip("jinja2")
    from secure_fl.report.page import write_report

    config = run / "config.toml"
    good = config.read_bytes()
    uses = (
        RunFolder.open(run).read_config,
        lambda: model_files(run),
        lambda: write_report([run], tmp_path / "page.html"),
    )
    config.write_bytes(b"")
    try:
        for use in uses:
            with pytest.raises(SecureFLError, match=r"config\.toml"):
                use()
    finally:
        config.write_bytes(good)
    assert not list(tmp_path.iterdir())
    assert load_card(run)


def test_a_configuration_that_was_cut_is_not_taken_for_a_shorter_one(run: Path) -> None:
    """At the end of any line it is TOML all the same, and what is missing would read as
    defaults.
    """
    config = run / "config.toml"
    good = config.read_bytes()
    ends = [place + 1 for place, byte in enumerate(good[:-1]) if byte == ord("\n")]
    try:
        for end in ends:
            config.write_bytes(good[:end])
            with pytest.raises(SecureFLError, match=r"config\.toml"):
                RunFolder.open(run).read_config()
    finally:
        config.write_bytes(good)
