"""A span for each round, and within it one for each phase, for OpenTelemetry (extra `traces`).

**Guarantee.** Nothing is sent anywhere but to the endpoint that is given; without one nothing is
made. A span says what a log line says: number, attempt, place, outcome, seconds and bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl import __version__
from secure_fl.errors import DependencyError
from secure_fl.operations.view import Course, Observer, View

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_NANO = 1_000_000_000


class Traces(Observer):
    """Exports what it is told when an attempt ends. Raises DependencyError: OpenTelemetry is not
    installed.

    Args:
        endpoint: address of a collector for OTLP over HTTP, with its path (`…/v1/traces`).
        role: `server` or `site`.
        name: of it.
        exporter: in the place of the one that speaks to `endpoint`.
    """

    def __init__(
        self, endpoint: str, role: str, name: str, exporter: SpanExporter | None = None
    ) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            problem, field = "needs OpenTelemetry, not installed", "operations.traces"
            remedy = "pip install 'secure-fl[traces]'"
            raise DependencyError(problem, field, endpoint, remedy) from None

        said = {"service.name": f"secure-fl-{role}", "service.instance.id": name}
        resource = Resource({**said, "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        chosen = exporter or OTLPSpanExporter(endpoint=endpoint, timeout=5)
        self._provider.add_span_processor(BatchSpanProcessor(chosen))
        self._tracer = self._provider.get_tracer("secure_fl")

    def ended(self, view: View, course: Course) -> None:
        from opentelemetry.trace import set_span_in_context

        began = int(course.began * _NANO)
        facts: dict[str, str | int | float] = {
            "number": course.number,
            "attempt": course.attempt,
            "outcome": course.outcome,
        }
        if course.place is not None:
            facts |= {"step": course.place.step, "round": course.place.round}
        span = self._tracer.start_span("round", start_time=began, attributes=facts)
        inside = set_span_in_context(span)
        for phase, leg in course.legs.items():
            size = {"bytes.in": leg.bytes["in"], "bytes.out": leg.bytes["out"]}
            more = {"number": course.number, "seconds": round(leg.seconds, 6), **size}
            start = began + int(leg.began * _NANO)
            part = self._tracer.start_span(phase, inside, start_time=start, attributes=more)
            part.end(began + int(leg.ended * _NANO))
        span.end(began + int(course.seconds * _NANO))

    def close(self) -> None:
        """Send what is left, as far as that is quick."""
        self._provider.force_flush(5000)
        self._provider.shutdown()
