"""A request is one trace from the gateway to the sampler, whoever takes its job up."""

import json

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from waiting import until

from rayramid.models.errors import UserError
from rayramid.serve.spec import ServeSpec
from rayramid.serve.tracing import Traces, open_traces

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans():
    """Keeps what `tracer` makes."""
    return InMemorySpanExporter()


@pytest.fixture
def traces(spans):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Traces(provider.get_tracer("test"))


def named(spans, name):
    return [span for span in spans.get_finished_spans() if span.name == name]


def parents(spans):
    """Names of spans with those of their parents, each once."""
    ids = {span.context.span_id: span.name for span in spans.get_finished_spans()}
    return {(span.name, ids.get(span.parent.span_id) if span.parent else None) for span in spans.get_finished_spans()}


def test_a_video_is_one_trace_that_begins_with_its_caller(endpoint, traces, spans):
    async def scenario(endpoint):
        body = {"prompt": "a secret cat"}
        made = await endpoint.http.post("/v1/videos", json=body, headers={"traceparent": CALLER})
        return await endpoint.ended(made.json()["id"]), endpoint.store.units(made.json()["id"])

    video, units = endpoint(scenario, traces=traces)
    assert video["status"] == "completed"
    assert parents(spans) == {
        ("create", None),
        ("queue", "create"),
        ("attempt", "create"),
        ("denoise", "attempt"),
        ("decode", "attempt"),
        ("store", "attempt"),
    }
    everything = spans.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in everything} == {CALLER.split("-")[1]}
    (create,) = named(spans, "create")
    assert f"{create.parent.span_id:016x}" == CALLER.split("-")[2]
    for name in ("denoise", "decode", "store"):
        assert [span.attributes["unit"] for span in named(spans, name)] == list(range(units))
    for name in ("create", "queue", "attempt"):
        assert [span.attributes["video"] for span in named(spans, name)] == [video["id"]]
    assert "secret" not in "".join(span.to_json() for span in everything)


def test_a_job_that_another_endpoint_takes_up_goes_on_in_its_trace(endpoint, traces, spans):
    async def begin(endpoint):
        endpoint.worker.held_at = 2
        video = await endpoint.create()
        await endpoint.units(video["id"], 2)
        return video["id"]

    async def finish(endpoint):
        await endpoint.ended(video_id)
        await until(lambda: len(named(spans, "attempt")) == 2)

    video_id = endpoint(begin, traces=traces)
    endpoint(finish, traces=traces)
    assert len({span.context.trace_id for span in spans.get_finished_spans()}) == 1
    assert [span.attributes["attempt"] for span in named(spans, "attempt")] == [1, 2]
    assert len(named(spans, "queue")) == 2


def test_without_traces_records_carry_none(endpoint):
    async def scenario(endpoint):
        made = await endpoint.http.post("/v1/videos", json={"prompt": "a cat"}, headers={"traceparent": CALLER})
        return endpoint.store.job(made.json()["id"])

    assert endpoint(scenario, generating=False).trace is None


def test_spans_go_to_a_file_per_process(tmp_path):
    traces = open_traces(str(tmp_path / "traces"), "gateway")
    with traces.creation("video_1", {}) as trace:
        assert trace is not None
    traces.close()
    (file,) = (tmp_path / "traces").iterdir()
    (span,) = map(json.loads, file.read_text().splitlines())
    assert (span["name"], span["attributes"]) == ("create", {"video": "video_1"})
    assert span["resource"]["attributes"]["service.name"] == "rayramid-gateway"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't write"):
        open_traces(str(tmp_path / "file" / "traces"), "gateway")


def test_a_spec_names_the_collector_or_a_folder(tmp_path):
    assert ServeSpec(model="/m", store="/s", traces="otlp").traces == "otlp"
    assert ServeSpec(model="/m", store="/s", traces="traces").traces.endswith("/traces")
    assert ServeSpec(model="/m", store="/s").traces is None
