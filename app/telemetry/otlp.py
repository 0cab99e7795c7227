"""Spans on their way to a collector, by OpenTelemetry's own exporter: the packages of the extra `otel`."""

from __future__ import annotations

from threading import Thread

from app.telemetry.trace import SAMPLED, ExtraMissing, Kind, Span

SERVICE = "risk-assessment-service"
TIMEOUT_S = 5.0
"""Of one export."""
END_S = 3.0
"""How long the end of a process waits for what is still to be sent."""


try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
    from opentelemetry.trace.propagation import set_span_in_context
except ImportError as error:
    raise ExtraMissing from error

_KINDS: dict[Kind, SpanKind] = {
    "server": SpanKind.SERVER,
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
}
_FLAGS = TraceFlags(SAMPLED)


class _Given(IdGenerator):
    """The ids of the span that is made next: they were told to others before the work was done."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class Exporter:
    """Sends spans in batches from a thread of its own; those that find no room in its queue are dropped.

    endpoint: the collector's URL of traces.  exporter: where they go instead.
    What OTEL_* variables say of headers, certificates, batches and the resource holds.
    """

    def __init__(self, endpoint: str, version: str, exporter: SpanExporter | None = None) -> None:
        named = Resource.create({"service.version": version})
        if str(named.attributes.get("service.name", "")).startswith("unknown_service"):
            named = named.merge(Resource({"service.name": SERVICE}))
        self._ids = _Given()
        # What to sample was decided before.
        self._provider = TracerProvider(ALWAYS_ON, named, shutdown_on_exit=False, id_generator=self._ids)
        chosen = exporter or OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(chosen))
        self._tracer = self._provider.get_tracer(SERVICE, version)

    def record(self, span: Span) -> None:
        """Queue a span; waits for nobody."""
        ids = self._ids
        ids.trace_id, ids.span_id = int(span.trace_id, 16), int(span.span_id, 16)
        context = None
        if span.parent_id:
            is_remote = span.kind == "server"
            parent = SpanContext(ids.trace_id, int(span.parent_id, 16), is_remote=is_remote, trace_flags=_FLAGS)
            context = set_span_in_context(NonRecordingSpan(parent))
        made = self._tracer.start_span(
            span.name, context, _KINDS[span.kind], dict(span.attributes), start_time=span.begun_ns
        )
        if span.error:
            made.set_attribute("error.type", span.error)
            made.set_status(Status(StatusCode.ERROR))
        made.end(span.ended_ns)

    def close(self) -> None:
        """Send what waits, as far as that goes in END_S."""
        # It may wait longer, and must not keep the process from ending then.
        closing = Thread(target=self._provider.shutdown, name="trace-end", daemon=True)
        closing.start()
        closing.join(END_S)
