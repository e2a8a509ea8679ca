"""What would fail late fails early, and says what to do."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import pytest
from helpers import StopAfter, make_images, tiny_config

from secure_fl import Callback, Federation
from secure_fl.errors import DependencyError, FileError, RunFolderError, SecureFLError
from secure_fl.estimate.preflight import check_folder, check_loaded, check_packages, warnings
from secure_fl.federation.run_folder.metrics import RoundRecord

MASKED = {"protection": "masked"}


class Count(Callback):
    done = 0

    def on_round(self, record: RoundRecord) -> None:
        self.done += 1

    def on_client(self, done: int, total: int) -> None:
        self.done += 1


@pytest.mark.parametrize(
    ("tables", "field"),
    [
        (
            {
                "security": MASKED,
                "pools": {"participation": 0.2, "start": "pretrained"},
                "partition": {"clients": 8},
            },
            "pools.participation",
        ),
        (
            {"security": MASKED, "pretrain": {"participation": 0.1}, "partition": {"clients": 8}},
            "pretrain.participation",
        ),
        ({"security": MASKED, "partition": {"kind": "iid", "clients": 1}}, "partition.clients"),
        (
            {
                "security": MASKED,
                "partition": {"kind": "iid", "clients": 1},
                "pools": {"enabled": False},
            },
            "partition.clients",
        ),
        (
            {
                "security": MASKED,
                "partition": {"kind": "iid", "clients": 2},
                "pools": {"enabled": False},
            },
            "partition.clients",
        ),
        ({"security": MASKED, "partition": {"clients": 5}}, "partition.clients"),
        ({"pools": {"count": 5}}, "pools.count"),
        (
            {
                "security": {**MASKED, "robust": "median", "group_size": 6},
                "partition": {"clients": 8},
            },
            "security.robust",
        ),
        (
            {"security": {**MASKED, "min_survivors": 9}, "partition": {"clients": 8}},
            "security.min_survivors",
        ),
        (
            {"security": {**MASKED, "threshold": 9}, "partition": {"clients": 8}},
            "security.threshold",
        ),
        (
            {
                "security": MASKED,
                "partition": {"kind": "iid", "clients": 6},
                "privacy": {"unit": "client", "epsilon": 0.01, "min_clients": 4},
                "pools": {"enabled": False},
            },
            "privacy.epsilon",
        ),
        (
            {
                "privacy": {
                    "unit": "example",
                    "epsilon": 0.6,
                    "choice_epsilon": 0.5,
                    "choice_every": 1,
                },
                "pools": {"start": "pretrained", "rounds": 3},
            },
            "privacy.epsilon",
        ),
    ],
)
def test_nothing_trains_where_the_settings_cannot_work_out(
    tables: dict[str, Any], field: str
) -> None:
    heard = Count()
    with pytest.raises(SecureFLError) as caught:
        Federation(tiny_config(**tables), data=make_images(300), callbacks=[heard]).run()
    assert heard.done == 0
    assert caught.value.field == field or field in str(caught.value), str(caught.value)
    assert len(caught.value.remedy) > 5
    if field == "privacy.epsilon":
        assert caught.value.remedy.startswith("at least ")


def test_a_run_to_load_from_must_have_finished(tmp_path: Path) -> None:
    data = make_images(120)
    loading = tiny_config(pretrain={"mode": "load", "load_from": str(tmp_path / "first")})
    with pytest.raises(RunFolderError, match="holds no run"):
        check_loaded(Federation(loading, data=data))
    with pytest.raises(KeyboardInterrupt):
        Federation(tiny_config(), data=data, callbacks=[StopAfter(1)]).run(tmp_path / "first")
    with pytest.raises(RunFolderError, match="not finished") as caught:
        check_loaded(Federation(loading, data=data))
    assert caught.value.field == "pretrain.load_from"
    Federation(tiny_config(), data=data).run(tmp_path / "first", resume=True)
    check_loaded(Federation(loading, data=data))
    with pytest.raises(SecureFLError):
        check_loaded(
            Federation(
                loading.model_copy(
                    update={"model": loading.model.model_copy(update={"features": 32})}
                ),
                data=data,
            )
        )


def test_a_missing_package_is_named_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec
    config = tiny_config(security={"protection": "bfv+masked"}, partition={"clients": 6})
    check_packages(config)
    for package in ("tenseal", "dp_accounting"):
        with monkeypatch.context() as patch:
            patch.setattr(
                util,
                "find_spec",
                lambda name, package=package: None if name == package else found(name),
            )
            with pytest.raises(DependencyError, match="pip install") as caught:
                check_packages(config)
            assert caught.value.field == package
            check_packages(tiny_config())


def test_folders_that_cannot_hold_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_folder(tmp_path / "new" / "run", 1000, private=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="is a file"):
        check_folder(tmp_path / "file", 1, private=False)
    with pytest.raises(FileError, match="cannot be written"):
        check_folder(tmp_path / "file" / "run", 1, private=False)
    with pytest.raises(RunFolderError, match="already holds"):
        check_folder(tmp_path, 1, private=False)
    with pytest.raises(FileError, match="MB left"):
        check_folder(tmp_path / "run", 1 << 60, private=False)
    monkeypatch.setenv("SECURE_FL_STATE", str(tmp_path / "file" / "state"))
    check_folder(tmp_path / "run", 1, private=False)
    with pytest.raises(FileError, match="cannot be written"):
        check_folder(tmp_path / "run", 1, private=True)


def test_settings_that_do_less_than_they_say_are_told() -> None:
    config = tiny_config(pretrain={"batch_size": 500}, evaluate={"knn": 5000, "fine_tune": (0.01,)})
    told = {warning.field for warning in warnings(Federation(config, data=make_images(120)))}
    assert told == {"pretrain.batch_size", "evaluate.knn", "evaluate.fine_tune"}
    assert not list(warnings(Federation(tiny_config(), data=make_images(120))))
