"""Spans of rounds and phases; nothing is made, let alone sent, without an endpoint."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
from operations.watched import ROUNDS, Watched

from secure_fl.errors import ConfigError, DependencyError
from secure_fl.operations.desk import observed
from secure_fl.operations.settings import OperationsSettings
from secure_fl.operations.traces import Traces

ENDPOINT = "http://127.0.0.1:4318/v1/traces"


def test_a_span_for_each_round_and_in_it_for_each_phase(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    traces = Traces(ENDPOINT, "server", "server", kept)
    made = Watched(tmp_path, [traces])
    made.run()
    traces._provider.force_flush()
    spans = kept.get_finished_spans()
    traces.close()
    rounds = {span.context.span_id: span for span in spans if span.name == "round" and span.context}
    assert sorted(span.attributes["number"] for span in rounds.values()) == list(range(ROUNDS))
    allowed = {"number", "attempt", "outcome", "step", "round", "seconds", "bytes.in", "bytes.out"}
    for span in spans:
        assert span.attributes.keys() <= allowed
        if span.name == "round":
            assert span.attributes["outcome"] == "done"
            continue
        assert span.parent is not None
        above = rounds[span.parent.span_id]
        assert above.start_time <= span.start_time <= span.end_time <= above.end_time
        assert span.attributes["number"] == above.attributes["number"]
    assert {"begin", "upload", "agree", "apply"} <= {span.name for span in spans}
    said = dict(spans[0].resource.attributes)
    assert said.keys() == {"service.name", "service.instance.id", "service.version"}


def _without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    honest = builtins.__import__

    def importing(name: str, *args: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return honest(name, *args)

    monkeypatch.setattr(builtins, "__import__", importing)


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, "opentelemetry")
    settings = OperationsSettings(traces=ENDPOINT, page="off")
    with (
        pytest.raises(DependencyError, match=r"pip install 'secure-fl\[traces\]'"),
        observed(tmp_path, role="site", name="north", settings=settings),
    ):
        pass


def test_without_an_endpoint_nothing_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, "opentelemetry")
    settings = OperationsSettings(page="off")
    with observed(tmp_path, role="site", name="north", settings=settings) as watch:
        assert not [one for one in watch.observers if isinstance(one, Traces)]


def test_an_endpoint_is_an_address() -> None:
    with pytest.raises(ConfigError, match="traces"):
        OperationsSettings(traces="file:///etc/passwd")
