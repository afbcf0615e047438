"""Prompts that change: by a schedule, while a video is made, and by a language model."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sameness import frame_differences, same_latents, same_pictures
from waiting import until

from rayramid.models.errors import UserError
from rayramid.serve.rewriter import Rewriter
from rayramid.serve.spec import RewriterOptions

# At 8 fps and one latent a unit, units begin at frames 0, 1, 9, 17, 25.
SCHEDULE = [{"from_second": 1.0, "prompt": "a dog"}, {"from_second": 3, "prompt": "a cow"}]


def test_a_schedule_changes_the_video_from_its_units_on_and_no_sooner(endpoint, frames_of):
    async def scenario(endpoint):
        plain = await endpoint.made(seed=1, seconds=4)
        scheduled = await endpoint.made(seed=1, seconds=4, prompt_schedule=SCHEDULE)
        # Two units come before the first change.
        first, second = (endpoint.latents(video["id"])[:, :2] for video in (plain, scheduled))
        assert same_latents(first, second)
        return scheduled, [frames_of(await endpoint.content(video["id"])) for video in (plain, scheduled)]

    video, (plain_THWC, scheduled_THWC) = endpoint(scenario)
    assert (video["prompt"], video["prompt_schedule"]) == (
        "a cat",
        [
            {"from_second": 1.125, "prompt": "a dog", "rewritten_prompt": None},
            {"from_second": 3.125, "prompt": "a cow", "rewritten_prompt": None},
        ],
    )
    assert same_pictures(plain_THWC[:9], scheduled_THWC[:9])
    assert frame_differences(plain_THWC[9:], scheduled_THWC[9:]).min() > 2


@pytest.mark.parametrize("way", ["nested", "openai", "curl"])
def test_a_schedule_comes_in_a_form_as_well(endpoint, way):
    nested = [
        ("prompt", "a cat"),
        ("seconds", "4"),
        ("prompt_schedule[][from_second]", "1"),
        ("prompt_schedule[][prompt]", "a dog"),
        ("prompt_schedule[][from_second]", "3"),
        ("prompt_schedule[][prompt]", "a cow"),
    ]
    ways = {
        "nested": nested,
        # All values of one key, then all of the next.
        "openai": sorted(nested, key=lambda field: field[0]),
        "curl": [*nested[:2], ("prompt_schedule", json.dumps(SCHEDULE))],
    }
    fields = [(name, (None, value)) for name, value in ways[way]]

    async def scenario(endpoint):
        return (await endpoint.http.post("/v1/videos", files=fields)).json()

    video = endpoint(scenario, generating=False)
    assert [each["prompt"] for each in video["prompt_schedule"]] == ["a dog", "a cow"]


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ([{"from_second": 0, "prompt": "x"}], "another prompt begins"),
        ([{"from_second": 9, "prompt": "x"}], "No unit"),
        ([{"from_second": -1, "prompt": "x"}], "greater than or equal to 0"),
        ([{"from_second": 1}], "prompt_schedule.0.prompt: Field required"),
        ("[", "not JSON"),
    ],
)
def test_a_wrong_schedule_is_refused(endpoint, schedule, says):
    error = endpoint(lambda endpoint: endpoint.create(400, prompt_schedule=schedule), generating=False)["error"]
    assert error["param"] == "prompt_schedule"
    assert says in error["message"]


def test_a_running_video_shows_the_new_prompt_from_the_unit_that_the_answer_names(endpoint, frames_of):
    async def scenario(endpoint):
        plain = await endpoint.made(seed=1, seconds=8, steps=4)
        endpoint.worker.held_at = 2
        video = await endpoint.create(seed=1, seconds=8, steps=4)
        await endpoint.units(video["id"], 2)
        changes = [
            (await endpoint.http.post(f"/v1/videos/{video['id']}/prompt", json={"prompt": prompt})).json()
            for prompt in ("a dog", "a cow")
        ]
        endpoint.worker.held_at = math.inf
        made = await endpoint.ended(video["id"])
        late = await endpoint.http.post(f"/v1/videos/{video['id']}/prompt", json={"prompt": "a bird"})
        before = changes[0]["from_unit"]
        assert same_latents(*(endpoint.latents(each["id"])[:, :before] for each in (plain, made)))
        return changes, made, late, [frames_of(await endpoint.content(each["id"])) for each in (plain, made)]

    (dog, cow), made, late, (plain_THWC, changed_THWC) = endpoint(scenario)
    assert (dog["object"], dog["prompt"]) == ("video.prompt", "a dog")
    assert dog["from_unit"] >= 2
    assert cow["from_unit"] == dog["from_unit"] + 1
    first = 1 + 8 * (dog["from_unit"] - 1)
    assert dog["from_second"] == first / 8
    assert [(each["from_second"], each["prompt"]) for each in made["prompt_schedule"]] == [
        (dog["from_second"], "a dog"),
        (cow["from_second"], "a cow"),
    ]
    assert same_pictures(plain_THWC[:first], changed_THWC[:first])
    assert frame_differences(plain_THWC[first:], changed_THWC[first:]).min() > 2
    assert (late.status_code, late.json()["error"]["code"]) == (400, "too_late")


def test_a_change_survives_the_worker(endpoint):
    async def interrupted(endpoint):
        endpoint.worker.held_at = 2
        video = await endpoint.create(seconds=8, steps=2)
        await endpoint.units(video["id"], 2)
        await endpoint.http.post(f"/v1/videos/{video['id']}/prompt", json={"prompt": "a dog"})
        await endpoint.http.post(f"/v1/videos/{video['id']}/prompt", json={"prompt": "a cow"})
        # The dog begins with unit 2 or 3; the cow has begun by unit 5, or not.
        endpoint.worker.held_at = 4
        await endpoint.units(video["id"], 4)
        return video["id"]

    video_id = endpoint(interrupted)
    made = endpoint(lambda endpoint: endpoint.ended(video_id))
    assert made["status"] == "completed"
    assert [each["prompt"] for each in made["prompt_schedule"]] == ["a dog", "a cow"]


def test_an_extension_that_has_begun_changes_after_what_it_was_given(endpoint):
    async def scenario(endpoint):
        short = await endpoint.made(seconds=1.5)
        endpoint.worker.held_at = 3
        body = {"video": {"id": short["id"]}, "seconds": 2}
        longer = (await endpoint.http.post("/v1/videos/extensions", json=body)).json()
        await until(lambda: endpoint.store.progress(longer["id"]))
        change = await endpoint.http.post(f"/v1/videos/{longer['id']}/prompt", json={"prompt": "a dog"})
        endpoint.worker.held_at = math.inf
        return change.json(), await endpoint.ended(longer["id"])

    change, video = endpoint(scenario)
    # Units 0 to 2 were given.
    assert change["from_unit"] in (3, 4)
    assert [each["prompt"] for each in video["prompt_schedule"]] == ["a dog"]


def test_the_prompt_of_a_waiting_video_can_be_replaced(endpoint):
    async def scenario(endpoint):
        endpoint.worker.held_at = 1
        running = await endpoint.create(seconds=30)
        waiting = await endpoint.create()
        change = (await endpoint.http.post(f"/v1/videos/{waiting['id']}/prompt", json={"prompt": "a dog"})).json()
        endpoint.worker.held_at = math.inf
        await endpoint.http.post(f"/v1/videos/{running['id']}/cancel")
        return change, await endpoint.ended(waiting["id"])

    change, video = endpoint(scenario, slots=1)
    assert (change["from_unit"], video["prompt"], video["prompt_schedule"]) == (0, "a dog", [])


@pytest.fixture
def language_model():
    """Starts chat endpoints that answer by a function from the request's body to a status and a body."""
    servers = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                assert self.path == "/v1/chat/completions"
                status, content = answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{servers[-1].server_address[1]}/v1"
        return Rewriter(RewriterOptions(url=url, model="small"))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def written_out(body):
    assert body["model"] == "small"
    content = f"  {body['messages'][-1]['content']}, in great detail\n"
    return 200, {"choices": [{"message": {"role": "assistant", "content": content}}]}


def test_prompts_are_written_out_on_request_and_both_are_in_the_answer(endpoint, language_model):
    async def scenario(endpoint):
        video = await endpoint.create(rewrite_prompt=True, seconds=4, prompt_schedule=SCHEDULE[:1])
        plain = await endpoint.create()
        return video, plain, endpoint.store.job(video["id"]).brief.prompts

    video, plain, told = endpoint(scenario, generating=False, rewriter=language_model(written_out))
    assert (video["prompt"], video["rewritten_prompt"]) == ("a cat", "a cat, in great detail")
    assert video["prompt_schedule"] == [
        {"from_second": 1.125, "prompt": "a dog", "rewritten_prompt": "a dog, in great detail"}
    ]
    assert told == {0: "a cat, in great detail", 2: "a dog, in great detail"}
    assert (plain["prompt"], plain["rewritten_prompt"]) == ("a cat", None)


@pytest.mark.parametrize("answer", [(500, {}), (200, {}), (200, {"choices": []})])
def test_a_language_model_that_fails_is_said_and_nothing_is_begun(endpoint, language_model, answer):
    async def scenario(endpoint):
        error = await endpoint.create(503, rewrite_prompt=True)
        return error, endpoint.store.newest_first()

    error, jobs = endpoint(scenario, generating=False, rewriter=language_model(lambda _: answer))
    assert (error["error"]["code"], jobs) == ("rewriter_failed", [])


def test_without_a_language_model_nothing_is_rewritten(endpoint):
    error = endpoint(lambda endpoint: endpoint.create(400, rewrite_prompt=True), generating=False)["error"]
    assert error["param"] == "rewrite_prompt"


def test_the_language_models_key_comes_from_the_environment(monkeypatch):
    options = RewriterOptions(url="http://llm/v1", model="small", api_key_env="LLM_KEY")
    with pytest.raises(UserError, match="LLM_KEY is not set"):
        Rewriter(options)
    monkeypatch.setenv("LLM_KEY", "secret")
    assert Rewriter(options)._http.headers["authorization"] == "Bearer secret"
