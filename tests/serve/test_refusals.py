"""What the HTTP API does not do, and how it says so."""

import pytest


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"prompt": ""}, "prompt", "at least 1 character"),
        ({"prompt": None}, "prompt", "valid string"),
        ({"size": "64"}, "size", "WIDTHxHEIGHT"),
        ({"size": "65x64"}, "size", "even"),
        ({"size": "512x512"}, "size", "65536 pixels"),
        ({"seconds": 0}, "seconds", "greater than 0"),
        ({"seconds": "long"}, "seconds", "valid number"),
        ({"seconds": 31}, "seconds", "more than the 30"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"steps": 0}, "steps", "greater than or equal to 1"),
        ({"guidance_scale": "NaN"}, "guidance_scale", "valid number"),
        ({"rewrite_prompt": 1}, "rewrite_prompt", "valid boolean"),
        ({"sed": 1}, "sed", "did you mean 'seed'?"),
        ({"input_reference": {"image_url": "https://example.com/a.png"}}, "input_reference", "data:"),
        ({"input_reference": {"image_url": "data:image/png;base64,AAAA"}}, "input_reference", "picture"),
    ],
)
def test_a_wrong_parameter_is_named(endpoint, fields, param, says):
    error = endpoint(lambda endpoint: endpoint.create(400, **fields), generating=False)["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert says in error["message"]


def test_other_errors_have_the_same_shape(endpoint):
    async def scenario(endpoint):
        http = endpoint.http
        return [
            await http.post("/v1/videos", content=b"{", headers={"content-type": "application/json"}),
            await http.post("/v1/videos", content=b"[]", headers={"content-type": "application/json"}),
            await http.post("/v1/videos", content=b"x", headers={"content-type": "text/plain"}),
            await http.post("/v1/videos", content=b"x", headers={"content-type": "multipart/form-data"}),
            await http.post("/v1/videos", json={"prompt": "x" * 300_000}),
            await http.get("/v1/videos/video_1"),
            await http.get("/v1/videos/..%2F..%2Fx/content"),
            await http.get("/v1/videos?limit=101"),
            await http.get("/v1/videos?after=x"),
            await http.get("/v1/nothing"),
            await http.put("/v1/videos"),
        ]

    responses = endpoint(scenario, generating=False)
    assert [response.status_code for response in responses] == [400, 400, 415, 400, 413, 404, 404, 400, 400, 404, 405]
    for response in responses:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert response.json()["error"]["type"] == "invalid_request_error"
    assert [response.json()["error"]["param"] for response in responses[7:9]] == ["limit", "after"]


def test_a_full_queue_answers_429_and_when_to_come_back(endpoint):
    async def scenario(endpoint):
        for _ in range(3):
            await endpoint.create()
        refused = await endpoint.http.post("/v1/videos", json={"prompt": "x"})
        return refused, (await endpoint.http.get("/v1/videos")).json()

    refused, listed = endpoint(scenario, generating=False, slots=1)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert len(listed["data"]) == 3
