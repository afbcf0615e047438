"""Traces of requests by OpenTelemetry, from the gateway through the broker to a sampler.

    create ─┬─ queue
            └─ attempt ── denoise, decode, store, unit by unit

A job's record carries its trace, so that whoever takes the job up, even days later, goes on in it. Spans name the video
and its units, and nothing of what is asked for.
"""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import NoOpTracer, Span, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rayramid.models.errors import UserError
from rayramid.serve.job import Job

_CARRIED = TraceContextTextMapPropagator()


class Traces:
    """Makes spans; none without a tracer. `close` sends those that wait to be sent."""

    def __init__(self, tracer: Tracer | None = None, close: Callable[[], None] = lambda: None) -> None:
        self._tracer = tracer or NoOpTracer()
        self.close = close

    @contextmanager
    def creation(self, job_id: str, headers: Mapping[str, str]) -> Iterator[str | None]:
        """The span of a request that begins a video; what the job's record is to carry.

        Args:
            job_id: of the video.
            headers: of the request; with a `traceparent` the span belongs to the caller's trace.
        """
        caller = _CARRIED.extract({"traceparent": headers.get("traceparent", "")})
        with self._tracer.start_as_current_span("create", caller, attributes={"video": job_id}) as span:
            carrier: dict[str, str] = {}
            if span.is_recording():
                _CARRIED.inject(carrier)
            yield carrier.get("traceparent")

    def queued(self, job: Job, since_ns: int) -> None:
        """A span of the time, from a Unix time in nanoseconds until now, in which a job waited for a slot."""
        said = {"video": job.id}
        self._tracer.start_span("queue", _context(job), attributes=said, start_time=since_ns).end()

    def attempt(self, job: Job, number: int) -> AbstractContextManager[Span]:
        """The span of an attempt at a job."""
        said: dict[str, str | int] = {"video": job.id, "attempt": number}
        return self._tracer.start_as_current_span("attempt", _context(job), attributes=said)

    def part(self, name: str, unit: int) -> AbstractContextManager[Span]:
        """The span of something that the current attempt does with a unit."""
        return self._tracer.start_as_current_span(name, attributes={"unit": unit})


def open_traces(to: str | None, process: str) -> Traces:
    """What makes spans in this process.

    Args:
        to: `otlp`, for the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names; a folder; or None.
        process: its name in traces.

    Raises:
        UserError: no exporter is installed, or the folder can't be written.
    """
    if to is None:
        return Traces()
    provider = TracerProvider(resource=Resource.create({"service.name": f"rayramid-{process}"}))
    provider.add_span_processor(BatchSpanProcessor(_otlp() if to == "otlp" else _file(Path(to), process)))
    return Traces(provider.get_tracer("rayramid.serve"), provider.shutdown)


def _context(job: Job) -> Context:
    """Of the job's trace; of none for a job without, whatever this process is doing for others."""
    return _CARRIED.extract({"traceparent": job.trace or ""})


def _otlp() -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise UserError("traces: otlp needs an exporter; pip install 'rayramid[otlp]'") from None
    return OTLPSpanExporter()


def _file(folder: Path, process: str) -> SpanExporter:
    """Writes a line of JSON per span."""
    path = folder / f"{process}-{socket.gethostname()}-{os.getpid()}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"traces: can't write to {path}: {error.strerror}") from None
    return ConsoleSpanExporter(out=file, formatter=lambda span: f"{span.to_json(indent=None)}\n")
