"""Nothing that is secret stands in what operators see: canaries are planted, and looked for after.

A private federation of real clients, from their folders, over drivers: three sites and a server,
all of them observed, with every message logged. Planted are values of examples, passphrases in
errors and in what other libraries log, and what a site says of its policy; the keys, the noised
updates and the trained models are canaries as they are.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from federation.parties import site_processes
from operations.wires import Net, run

from secure_fl.crypto.envelope import Phase
from secure_fl.data.partitions import ClientData
from secure_fl.engines.session.link import Arrived
from secure_fl.federation.parties.party import Message, Party
from secure_fl.federation.wire import route
from secure_fl.operations import logs
from secure_fl.operations.lines import Lines
from secure_fl.operations.metrics import Metrics
from secure_fl.operations.probes import Health
from secure_fl.operations.status_page import StatusPage
from secure_fl.operations.traces import Traces
from secure_fl.operations.watching import Watching

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

PLANTED = 0.73915273
PASSPHRASE = "Canary-Passphrase-1873"
OBJECTION = "Canary-Objection-patient-17"
SENDER = "Canary-Sender-4711"


class Noisy(Watching):
    """A watch during which errors that quote secrets are thrown and logged."""

    def stepped(self, party: Party) -> None:
        super().stepped(party)
        logging.getLogger("urllib3").warning("retry with %s", PASSPHRASE)
        try:
            raise ValueError(f"cannot parse {PASSPHRASE} of {PLANTED}")
        except ValueError as error:
            logging.getLogger("grpc._server").exception("calling %s", PASSPHRASE)
            logs.failed("broke", error, site=party.name, passphrase=PASSPHRASE, reason=str(error))


def planted(number: int) -> ClientData:
    data = EXAMPLES(number)
    data.train.x.view(-1)[::7] = PLANTED
    return data


EXAMPLES = site_processes.examples


def spoken(data: bytes) -> Iterator[str]:
    """Windows of bytes, as text would show them."""
    for start in range(0, len(data) - 15, 61):
        part = data[start : start + 16]
        yield part.hex()
        yield repr(part)[2:-1]
        for shift in range(3):
            yield base64.b64encode(part[shift:])[1:17].decode()


def values(tensor: torch.Tensor) -> Iterator[str]:
    """Numbers with digits enough not to be there by chance."""
    for value in tensor.detach().double().flatten()[:400].tolist():
        for word in (f"{value:.8f}", repr(float(np.float32(value)))):
            if len(word.strip("-0.")) >= 8:  # times are told with six digits
                yield word


def parties(folder: Path) -> dict[str, list[Any]]:
    """The server, and three sites with two clients each, of which the last has the authority."""
    facts = site_processes.prepare(folder, "authority")
    made = {name: site_processes.make_party(data, lambda _: b"")[0] for name, data in facts.items()}
    clients = sorted(name for name in made if name.startswith("client"))
    objects: Any = made[clients[0]]
    objects._site = type(objects._site)(
        objects._site.prepare, lambda _: OBJECTION, objects._site.admit, objects._site.follow
    )
    return {
        "server": [made["server"]],
        "north": [made[name] for name in clients[:2]],
        "east": [made[name] for name in clients[2:4]],
        "south": [*(made[name] for name in clients[4:]), made["authority"]],
    }


def canaries(folder: Path, all_: Sequence[Any], carried: Sequence[bytes]) -> dict[str, set[str]]:
    """What must stand nowhere, by kind."""
    state = Path(os.environ["SECURE_FL_STATE"])
    keys = [path for path in state.rglob("*") if path.is_file()]
    keys += [path for path in (folder / "identities").rglob("*") if path.is_file()]
    models = [party.state.tensors.values() for party in all_[1:] if party.state]
    tensors = [tensor for each in models for tensor in each if tensor.is_floating_point()]
    train = [planted(number).train.x for number in range(site_processes.CLIENTS)]
    assert len(keys) > 8
    assert len(tensors) > 5
    return {
        "planted": {PASSPHRASE, OBJECTION, SENDER, "0.7391", f"{PLANTED}", "Canary"},
        "keys": {word for path in keys for word in spoken(path.read_bytes())},
        "examples": {word for one in train for word in values(one[:6])},
        "models": {
            word
            for one in tensors
            for word in (*values(one), *spoken(one.detach().numpy().tobytes()[:4096]))
        },
        "messages": {word for data in carried for word in spoken(data[-2048:])},
    }


class Carried(Watching):
    """Keeps what is sent and secret: the noised updates, shares of keys, sealed states."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.bodies: list[bytes] = []

    def sent(self, sender: str, message: Message) -> None:
        if route(message.data).phase in (Phase.UPLOAD, Phase.SHARE, Phase.STATE, Phase.SECRET):
            self.bodies.append(bytes(message.data))
        super().sent(sender, message)


class Both(Noisy, Carried):
    """Both."""


def junk(net: Net) -> None:
    """Bytes of anybody, with a name that nobody has, at everybody's door."""
    head = b"SFE1" + bytes([18]) + bytes(20) + bytes(96)
    for text in (SENDER, PASSPHRASE, SENDER, SENDER):
        head += bytes([len(text)]) + text.encode()
    for machine in net.queues:
        for to in [party for party, at in net.at.items() if at == machine]:
            net.queues[machine].put(Arrived(to, head + bytes(64) + PASSPHRASE.encode()))


def watched(
    stack: ExitStack, machine: str, own: Sequence[Any], shown: Path, spans: SpanExporter
) -> Both:
    """One machine's watch, with everything that may be told; `stack` closes what writes late."""
    record = own[0].folder.path
    watch = Both(record, role="server" if machine == "server" else "site", name=machine)
    watch.follow(record, {one.name: one.folder.path / "ledger.json" for one in own})
    page = StatusPage(shown / f"{machine}.html", watch.view)
    traces = Traces("http://127.0.0.1:1/v1/traces", watch.view.role, machine, spans)
    metrics = Metrics(watch.view)
    watch.observers = (Lines(), Health(60), page, traces, metrics)

    def late() -> None:
        traces.close()
        page.write(watch.view, ends=True)
        (shown / f"{machine}.metrics").write_bytes(metrics.page())

    stack.callback(late)
    return watch


def lived(machines: dict[str, list[Any]], shown: Path) -> dict[str, Both]:
    """A whole federation, all of it watched, beside a thread that crashes."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    with ExitStack() as stack:
        stack.callback(logs.configure(json=True, path=shown / "log.json", level="debug"))
        stack.callback(logs.configure(path=shown / "log.text", level="debug"))
        watches = {one: watched(stack, one, own, shown, spans) for one, own in machines.items()}
        run(machines, watches, before=junk)
        crash = threading.Thread(target=lambda: {}[PASSPHRASE])  # type: ignore[misc]
        crash.start()
        crash.join()
    text = "\n".join(span.to_json() for span in spans.get_finished_spans())
    (shown / "spans").write_text(text)
    return watches


def test_nothing_secret_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setattr(site_processes, "examples", planted)
    folder, shown = tmp_path / "parties", tmp_path / "shown"
    folder.mkdir()
    shown.mkdir()
    machines = parties(folder)
    watches = lived(machines, shown)
    (shown / "terminal").write_text("".join(capfd.readouterr()))
    all_ = [party for own in machines.values() for party in own]
    for party in all_:
        party.folder.close()
    check_it_was_real(machines, watches, shown)
    secret = canaries(folder, all_, [data for watch in watches.values() for data in watch.bodies])
    words = set().union(*secret.values())
    found = {path.name: hits(path.read_text(), words) for path in shown.iterdir()}
    assert not any(found.values()), found


def hits(text: str, words: set[str]) -> set[str]:
    """Which of them stand there. First letters are looked up, so that few are searched for."""
    starts = {text[at : at + 8] for at in range(len(text))}
    return {word for word in words if (len(word) < 8 or word[:8] in starts) and word in text}


def check_it_was_real(
    machines: dict[str, list[Any]], watches: dict[str, Both], shown: Path
) -> None:
    """A federation went to its end, and everything that operators see had something to show."""
    assert watches["server"].view.end == "done"
    assert watches["server"].view.failed == ""
    lines = [json.loads(line) for line in (shown / "log.json").read_text().splitlines()]
    events = {line["event"] for line in lines}
    assert {"message", "round-ended", "refused", "broke", "foreign", "thread-crashed"} <= events
    assert any(line.get("dropped") == ["passphrase", "reason"] for line in lines)
    assert all(path.stat().st_size > 500 for path in shown.iterdir() if path.name != "terminal")
    assert "secure_fl_epsilon_spent{" in (shown / "north.metrics").read_text()
    assert len((shown / "spans").read_text()) > 1000
    refused = machines["server"][0].said
    assert any(OBJECTION in one["problem"] for one in refused), "the server was told, and kept it"


def test_a_canary_would_be_found() -> None:
    """Each way to look for one finds what it should."""
    key = bytes(range(100, 200))
    tensor = torch.tensor([0.123456789, -7.654321])
    for word in [key[61:77].hex(), base64.b64encode(key[61:77]).decode(), key.hex()]:
        assert hits(f"key={word} ", set(spoken(key))), word
    assert hits("value=0.12345679", set(values(tensor)))
    assert hits(f"error: {PASSPHRASE}!", {PASSPHRASE})
    assert not hits("2026-11-30T18:00:00.123Z info began", set(spoken(key)) | set(values(tensor)))
