"""Clients in worker processes: the same run, and a clean end whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.verify.records import lines_of
from helpers import StopAfter, make_images, tiny_config, weights
from torch import Tensor, nn

from secure_fl import Callback, Federation, Result
from secure_fl.config import FederationConfig
from secure_fl.engines.sending import (
    client_of,
    client_packet,
    decode,
    encode,
    error_document,
    error_of,
)
from secure_fl.engines.workers import shares
from secure_fl.errors import ConfigError, FileError, ModelError, TrainingError
from secure_fl.federation.run_folder.metrics import RoundRecord
from secure_fl.federation.verify.check import verify
from secure_fl.privacy.ledger import PrivacyLedger

_SHORT: dict[str, Any] = {
    "pretrain": {"rounds": 1},
    "pools": {"rounds": 2, "local_epochs": 1, "sketch_starts": 2},
    "evaluate": {"probe_epochs": 1},
}


def own_encoder(seed: int) -> nn.Module:
    """A caller's own encoder, of a module that workers can import."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8))


def darker(x: Tensor) -> Tensor:
    """A caller's own augmentation."""
    return 0.9 * x


def with_workers(workers: int, **tables: dict[str, Any]) -> FederationConfig:
    laid = {name: {**_SHORT.get(name, {}), **tables.get(name, {})} for name in _SHORT | tables}
    return tiny_config(**laid | {"runtime": {"device": "cpu", "workers": workers}})


def timeless(result: Result) -> list[dict[str, Any]]:
    left = ("seconds", "secure_seconds", "sum_seconds")
    records = [asdict(each) for each in result.records]
    return [{k: v for k, v in one.items() if k not in left} for one in records]


def children() -> set[int]:
    """Processes that this one has started and that still run."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    found = {int(pid) for each in tasks for pid in each.read_text().split()}
    return {pid for pid in found if "engines.pipes" in Path(f"/proc/{pid}/cmdline").read_text()}


class Told(Callback):
    """What a run tells."""

    def __init__(self) -> None:
        self.replies: list[str] = []
        self.done: list[int] = []

    def on_reply(self, client: str) -> None:
        self.replies.append(client)

    def on_client(self, done: int, total: int) -> None:
        self.done.append(done)


class Kills(Callback):
    """Kills a worker when the second round has begun."""

    def __init__(self) -> None:
        self.rounds = 0

    def on_round(self, record: RoundRecord) -> None:
        self.rounds += 1

    def on_client(self, done: int, total: int) -> None:
        if self.rounds == 2:
            self.rounds += 1
            os.kill(min(children()), signal.SIGKILL)


def test_two_workers_give_the_models_and_records_of_one_process() -> None:
    told = [Told(), Told()]
    security = {"protection": "masked"}
    start = {"start": "pretrained", "count": 1}
    one, two = (
        Federation(
            with_workers(workers, security=security, pools=start),
            data=make_images(120),
            encoder=own_encoder,
            augment=darker,
            callbacks=each,
        ).run()
        for workers, each in zip((1, 2), told, strict=True)
    )
    assert torch.equal(weights(one), weights(two))
    assert timeless(one) == timeless(two)
    assert sorted(told[0].replies) == sorted(told[1].replies)
    assert told[0].done == told[1].done
    assert not children()


def test_a_run_of_one_process_goes_on_in_workers_which_follow_its_transcript(
    tmp_path: Path,
) -> None:
    """Sketches that were released are taken up, and none is released again."""
    folder, data = tmp_path / "run", make_images(120)
    tables = {"partition": {"clients": 6}, "security": {"protection": "masked"}}
    one, two = (with_workers(workers, **tables) for workers in (1, 2))
    with pytest.raises(KeyboardInterrupt):
        # Pre-training, its measure, the centre, three rounds of sketches.
        Federation(one, data=data, callbacks=StopAfter(6)).run(folder)
    begun = lines_of(folder)
    charged = PrivacyLedger.load(folder / "ledger.json").releases
    assert {each.phase for each in charged} == {"centre", "sketch"}
    Federation(two, data=data).run(folder, resume=True)
    assert PrivacyLedger.load(folder / "ledger.json").releases == charged
    went_on = lines_of(folder)
    assert went_on[: len(begun)] == begun
    start = went_on[len(begun)].head.hex().encode()  # the head with which the run goes on
    joined = [line for line in went_on[len(begun) :] if line.entry.kind == "joined"]
    assert [start in line.evidence[0] for line in joined] == [True] * 6
    assert verify(folder).findings == ()


@pytest.mark.slow
def test_a_private_run_is_charged_as_in_one_process_and_resumed_without_another_release(
    tmp_path: Path,
) -> None:
    privacy = {"unit": "example", "epsilon": 50.0, "delta": 1e-3, "sketch_epsilon": 5.0}
    pools = {"task": "supervised"}

    def run(name: str, workers: int, *stops: Callback, resume: bool = False) -> None:
        config = with_workers(workers, privacy=privacy, pools=pools)
        federation = Federation(config, data=make_images(120), callbacks=stops)
        federation.run(tmp_path / name, resume=resume)

    def charged(name: str) -> list[tuple[str, int, tuple[int, ...]]]:
        ledger = PrivacyLedger.load(tmp_path / name / "ledger.json")
        return sorted((each.phase, each.round, each.subjects) for each in ledger.releases)

    run("one", 1)
    with pytest.raises(KeyboardInterrupt):
        run("two", 2, StopAfter(2, midway=True))
    assert not children()
    run("two", 2, resume=True)
    assert charged("one") == charged("two")


def test_a_worker_that_dies_is_a_typed_error_and_the_run_goes_on_without_workers(
    tmp_path: Path,
) -> None:
    data = make_images(120)
    whole = Federation(with_workers(1), data=data).run()
    with pytest.raises(TrainingError, match=r"worker process has ended.*-9"):
        Federation(with_workers(2), data=data, callbacks=Kills()).run(tmp_path / "run")
    assert not children()
    resumed = Federation(with_workers(1), data=data).run(tmp_path / "run", resume=True)
    assert torch.equal(weights(whole), weights(resumed))


def test_a_worker_ends_with_the_process_that_started_it_in_the_middle_of_its_work() -> None:
    code = (
        "from secure_fl.engines.pipes import Remote; import time\n"
        "one = Remote('federation.test_workers:works_for_ever', b'')\n"
        "print(one._process.pid, flush=True)\n"
        "time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    starter = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    for _ in range(200):
        if Path(f"/proc/{pid}/comm").read_text().strip() == "works":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker did not begin")
    starter.kill()
    starter.communicate()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in _state(pid):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker went on alone")


def works_for_ever(facts: bytes, ask: object) -> list[Any]:
    """The parties of a process that never comes to an end."""
    Path("/proc/self/comm").write_text("works")
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize(
    "own",
    [
        {"encoder": nn.Sequential(nn.Flatten(), nn.Linear(64, 8))},
        {"encoder": lambda seed: own_encoder(seed)},
        {"augment": lambda x: x},
    ],
)
def test_what_has_no_name_in_a_module_is_refused(own: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.workers.*cannot be sent to worker processes"):
        Federation(with_workers(2), data=make_images(120), **own)


@pytest.mark.parametrize("runtime", [{"threads": 2}, {"device": "cuda"}])
def test_workers_have_one_thread_of_a_processor(runtime: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.workers"):
        FederationConfig(runtime={"workers": 2, **runtime})


def test_examples_arrive_as_they_were_sent() -> None:
    client = Federation(with_workers(1), data=make_images(120)).clients[1]
    sent = client_of(*decode(encode(*client_packet(client))))
    assert torch.equal(sent.train.x, client.train.x)
    assert torch.equal(sent.test.y, client.test.y)
    assert (sent.id, sent.group, sent.name) == (client.id, client.group, client.name)
    assert sent.train.class_names == client.train.class_names
    assert sent.sketched is None


def test_clients_are_dealt_out_by_what_they_train_on() -> None:
    clients = Federation(with_workers(1), data=make_images(120)).clients
    assert shares(clients, 2) == [[0, 2], [1, 3]]
    assert shares(clients[:1], 3) == [[0]]


def test_errors_arrive_with_their_kind_and_words_and_strangers_with_their_kind_alone() -> None:
    error = ModelError("is none", field="encoder", value=(3, 4), remedy="mend it")
    found = error_of(error_document(error))
    assert type(found) is ModelError
    assert str(found) == str(error)
    stranger = error_of(error_document(ValueError("an example: 0.25")))
    assert "0.25" not in str(stranger)
    assert "ValueError" in str(stranger)
    assert (
        type(error_of(error_document(FileError("gone", field="f", value=1, remedy="r"))))
        is FileError
    )


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"
