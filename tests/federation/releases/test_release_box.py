"""Private results: made once, sealed, and counted as made whatever is deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from secure_fl.errors import FileError, RunFolderError, SecureSumError
from secure_fl.federation.releases import box as release_box
from secure_fl.federation.releases import run_state
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.run_state import RunState, state_directory

Tensors = dict[str, torch.Tensor]


class Maker:
    """Another answer each time."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> Tensors:
        self.made += 1
        return {"x": torch.tensor([self.made])}


def box(folder: Path, *charged: str) -> ReleaseBox:
    """A box as a process that was just started opens it."""
    return ReleaseBox(folder / "results", RunState("run-" + folder.name), lambda: charged)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECURE_FL_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_results_are_stored_before_they_are_returned(run: Path) -> None:
    kept, make = box(run), Maker()
    assert kept.once("a", make)["x"] == kept.once("a", make)["x"] == 1
    assert kept.once("b", make, reused=True)["x"] == 2
    kept.checkpointed()
    assert kept.once("b", make, reused=True)["x"] == 2
    assert kept.once("a", make)["x"] == 1, "kept as long as the checkpoint before"
    kept.checkpointed()
    assert kept.lost("a")
    assert not kept.lost("b")
    assert not kept.lost("never made")
    assert kept.once("a", make)["x"] == 3
    assert box(run).once("a", make)["x"] == 3, "after a restart"
    assert (kept.answers("a"), kept.answers("b"), kept.answers("c")) == (2, 1, 1)
    kept.close()
    assert not (run / "results").exists()


def test_nothing_is_stored_where_the_run_writes_nothing(state: Path) -> None:
    kept, make = ReleaseBox(None), Maker()
    assert [int(kept.once("a", make)["x"]) for _ in range(2)] == [1, 2]
    assert (kept.answers("a"), kept.lost("a")) == (1, False)
    kept.checkpointed()
    kept.close()
    assert not state.exists()


def damage(run: Path) -> None:
    for path in (run / "results").rglob("*.sealed"):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def delete(run: Path, state: Path, what: str) -> None:
    """What an experimenter may do to a run's folder between a crash and the resume."""
    listed = run / "results.made"
    for part in what.split(" and "):
        match part:
            case "results":
                shutil.rmtree(run / "results")
            case "one result":
                next((run / "results").rglob("*.sealed")).unlink()
            case "list":
                listed.unlink()
            case "list emptied":
                listed.write_text("")
            case "list shortened":
                listed.write_text(listed.read_text().split("\n")[0] + "\n")
            case "key":
                (state / "runs" / "run-run" / "key").unlink()
            case "state":
                shutil.rmtree(state)
            case "damaged":
                damage(run)


STAYS = ["nothing", "list", "list emptied", "list shortened"]
GOES = ["results", "results and list", "results and list emptied", "key", "damaged"]
OTHERS = [
    "one result",
    "results and list shortened",
    "state",
    "state and results",
    "state and results and list",
]


def different_answers(run: Path, state: Path, deleted: str) -> tuple[int, int]:
    """How many different answers two questions got over two crashes with deletions, and how many
    are charged, as the gate charges.
    """
    make, charged, seen = Maker(), list[str](), set[tuple[str, int]]()
    for _ in range(3):
        kept = box(run, *charged)
        for key in ("a", "b"):
            needed = [
                key,
                *(release_box.charged_again(key, number) for number in range(1, kept.answers(key))),
            ]
            charged = [*dict.fromkeys([*charged, *needed])]
        seen |= {(key, int(kept.once(key, make)["x"])) for key in ("a", "b")}
        delete(run, state, deleted)
    return len(seen), len(charged)


@pytest.mark.parametrize("deleted", [*STAYS, *GOES, *OTHERS])
def test_every_different_answer_is_charged_whatever_was_deleted(
    deleted: str, run: Path, state: Path
) -> None:
    answers, charged = different_answers(run, state, deleted)
    assert answers <= charged
    if deleted in STAYS:
        assert answers == charged == 2, "results that are there are sent again"
    if deleted in GOES:
        assert answers == charged == 6


@pytest.mark.parametrize("deleted", ["results", "results and list", "state and results and list"])
def test_a_box_that_forgets_would_be_caught(
    deleted: str, run: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: what is not there was never made."""
    monkeypatch.setattr(ReleaseBox, "answers", lambda self, key: 1)
    answers, charged = different_answers(run, state, deleted)
    assert answers > charged


def test_a_crash_between_charging_and_making_charges_once(run: Path) -> None:
    """Also the second time round, after an answer was lost."""
    make = Maker()
    kept = box(run)
    assert kept.answers("a") == 1
    assert box(run, "a").answers("a") == 1
    box(run, "a").once("a", make)
    shutil.rmtree(run / "results")
    assert box(run, "a").answers("a") == 2
    again = release_box.charged_again("a", 1)
    assert box(run, "a", again).answers("a") == 2
    assert box(run, "a", again).once("a", make)["x"] == 2
    assert box(run, "a", again).answers("a") == 2


def test_a_crash_between_storing_and_listing_loses_no_count(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Maker()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReleaseBox, "_enter", killed)
        with pytest.raises(KeyboardInterrupt):
            box(run).once("a", make)
    assert box(run, "a").once("a", make)["x"] == 1
    shutil.rmtree(run / "results")
    assert box(run, "a").answers("a") == 2


def test_half_a_line_of_the_list_is_cut(run: Path) -> None:
    make = Maker()
    box(run).once("a", make)
    with (run / "results.made").open("a") as file:
        file.write("4f")
    assert box(run, "a").once("a", make)["x"] == 1
    assert box(run, "a").once("b", make)["x"] == 2
    assert len((run / "results.made").read_text().split()) == 2


def test_two_boxes_give_one_answer(run: Path) -> None:
    """The folder's lock keeps runs apart; should it fail, the first answer is everybody's."""
    first, second, make = box(run), box(run), Maker()
    answers = []

    def slow() -> Tensors:
        answers.append(second.once("a", make))
        return make()

    answers.append(first.once("a", slow))
    assert make.made == 2
    assert answers[0]["x"] == answers[1]["x"] == 1
    assert len((run / "results.made").read_text().split()) == 1
    assert not first.lost("a")


def test_what_is_stored_is_sealed_for_its_release_and_its_run(run: Path, state: Path) -> None:
    secret = {"x": torch.arange(100, dtype=torch.int64)}
    box(run).once("client-1", lambda: secret)
    (path,) = (run / "results").rglob("*.sealed")
    raw = secret["x"].numpy().tobytes()
    for file in run.rglob("*"):
        assert not file.is_file() or raw[:64] not in file.read_bytes()
    assert not list(run.rglob("key"))
    other = path.with_name(release_box._file("client-2", 0))
    shutil.copy(path, other)
    assert box(run, "client-2").answers("client-2") == 1, "nothing that opens was made for client 2"
    assert box(run, "client-2").once("client-2", Maker())["x"] == 1


def test_an_unsealed_store_would_be_caught(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault."""
    monkeypatch.setattr(release_box, "seal_with", lambda key, data, context: data)
    monkeypatch.setattr(release_box, "open_with", lambda key, data, context: data)
    with pytest.raises(AssertionError):
        test_what_is_stored_is_sealed_for_its_release_and_its_run(run, state)


def test_the_key_goes_first_and_nothing_is_left(
    run: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    for module in (release_box, run_state):
        remove = module.remove
        monkeypatch.setattr(
            module, "remove", lambda path, remove=remove: (gone.append(path.name), remove(path))[1]
        )
    kept = box(run)
    kept.once("a", Maker())
    assert {path.stat().st_mode & 0o777 for path in state.rglob("*") if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in state.rglob("*") if path.is_dir()} == {0o700}
    gone.clear()
    kept.close()
    assert gone == ["key", "run-run", "results"]
    assert not list(state.rglob("key"))
    assert not (run / "results").exists()


def test_where_the_state_lies(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECURE_FL_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/xdg")
    assert state_directory() == Path("/var/xdg/secure_fl")
    monkeypatch.setenv("XDG_STATE_HOME", "relative, so not to be used")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert state_directory() == Path("/home/somebody/.local/state/secure_fl")

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(RunFolderError, match="SECURE_FL_STATE: there is no home directory"):
        state_directory()
    monkeypatch.setenv("SECURE_FL_STATE", "relative")
    with pytest.raises(RunFolderError, match="not an absolute path"):
        state_directory()
    monkeypatch.setenv("SECURE_FL_STATE", str(run / "state"))
    with pytest.raises(RunFolderError, match="lies in the run's own folder"):
        box(run).once("a", Maker())
    assert not list(run.iterdir())


def test_a_state_directory_that_cannot_be_written_to_is_named(run: Path, state: Path) -> None:
    state.write_text("a file")
    with pytest.raises(
        RunFolderError, match=r"SECURE_FL_STATE: cannot be made.*Remedy: set SECURE_FL_STATE"
    ):
        box(run).once("a", Maker())


def test_a_key_that_others_may_read_is_refused(run: Path, state: Path) -> None:
    box(run).once("a", Maker())
    (state / "runs" / "run-run" / "key").chmod(0o644)
    with pytest.raises(SecureSumError, match="others may read"):
        box(run).once("a", Maker())


def test_what_cannot_be_stored_is_not_sent(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise FileError(
            "cannot be written: No space left on device", field="f", value="v", remedy="r"
        )

    monkeypatch.setattr(release_box, "write_atomically", full)
    with pytest.raises(FileError, match="No space"):
        box(run).once("a", Maker())
