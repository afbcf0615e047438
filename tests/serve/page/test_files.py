"""What the page is made of, and the headers that it comes with. No browser is needed."""

import json
import re
import zipfile

import pytest

from rayramid.models.card import ModelCard
from rayramid.platform.wheel import build_wheel
from rayramid.serve.job import Model
from rayramid.serve.offer import offer
from rayramid.serve.page.routes import FILES
from rayramid.serve.spec import Limits

HTML = (FILES / "index.html").read_text()
SCRIPTS = {path.name: path.read_text() for path in FILES.glob("*.js")}


def test_the_page_and_its_files_are_served_with_a_policy_that_allows_nothing_from_elsewhere(endpoint):
    async def scenario(endpoint):
        paths = ["", *(f"page/{path.name}" for path in FILES.iterdir())]
        answers = {path: await endpoint.http.get(f"/{path}") for path in paths}
        again = await endpoint.http.get("/", headers={"If-None-Match": answers[""].headers["etag"]})
        refused = [await endpoint.http.get("/page/nothing.js"), await endpoint.http.get("/page/../routes.py")]
        return answers, again, [*refused, await endpoint.http.post("/")], (await endpoint.http.head("/")).status_code

    answers, again, refused, head = endpoint(scenario, generating=False)
    types = {"js": "javascript", "css": "text/css", "svg": "image/svg+xml", "html": "text/html", "": "text/html"}
    for path, answer in answers.items():
        assert answer.status_code == 200, path
        assert types[path.rpartition(".")[2]] in answer.headers["content-type"]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert again.status_code == 304
    assert [each.status_code for each in refused] == [404, 404, 405]
    assert all("error" in json.loads(each.text) for each in refused)
    assert head == 200


def test_nothing_stands_inline_and_every_file_and_element_that_is_named_is_there():
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", HTML)
    named = re.findall(r'(?:src|href)="page/([^"]+)"', HTML)
    named += [name for script in SCRIPTS.values() for name in re.findall(r'from "\./([^"]+)"', script)]
    assert set(named) == {path.name for path in FILES.iterdir()} - {"index.html"}
    ids = set(re.findall(r'\sid="([^"]+)"', HTML))
    wanted = {name for script in SCRIPTS.values() for name in re.findall(r'\$\("([^"]+)"\)', script)}
    assert wanted - ids == set()
    assert not any("innerHTML" in script for script in SCRIPTS.values())


def test_a_wheel_holds_the_page(tmp_path):
    names = zipfile.ZipFile(build_wheel(tmp_path)).namelist()
    assert {f"rayramid/serve/page/files/{path.name}" for path in FILES.iterdir()} <= set(names)


def test_what_may_be_asked_for_is_told_in_openais_shape(endpoint):
    async def scenario(endpoint):
        listed = await endpoint.http.get("/v1/models")
        (model,) = listed.json()["data"]
        one = await endpoint.http.get(f"/v1/models/{model['id']}")
        return model, one.json(), await endpoint.http.get("/v1/models/other")

    model, one, other = endpoint(scenario, generating=False)
    assert model == one
    assert (model["id"], model["object"], model["owned_by"]) == ("tiny", "model", "rayramid")
    assert (model["sizes"], model["seconds"], model["max_seconds"], model["fps"]) == (["64x64"], 17 / 8, 30, 8)
    assert (model["max_pixels"], model["max_prompt_characters"], model["max_upload_bytes"]) == (65536, 4000, 200_000)
    assert (model["image_to_video"], model["extends"]) == (True, True)
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("size", "pixels", "sizes"),
    [
        ((1280, 768), 1280 * 768, ["1280x768", "768x1280", "960x960"]),
        ((1280, 768), 950_000, ["1280x768", "960x960"]),
        ((64, 64), 64 * 64, ["64x64"]),
    ],
)
def test_the_sizes_on_offer_are_the_models_own_turned_and_square(card: ModelCard, size, pixels, sizes):
    fields = {**card.__dict__, "width": size[0], "height": size[1]}
    offered = offer(Model.of(ModelCard(**fields), None), Limits(pixels=pixels))
    assert offered.sizes == sizes


def test_a_model_that_makes_a_whole_video_at_once_takes_no_picture_and_extends_nothing(card: ModelCard):
    fields = {**card.__dict__, "dit": {**card.dit, "frames_per_unit": None}}
    offered = offer(Model.of(ModelCard(**fields), None), Limits())
    assert (offered.image_to_video, offered.extends) == (False, False)


def test_the_openai_client_lists_the_models(endpoint):
    import openai

    async def scenario(endpoint):
        async with openai.AsyncOpenAI(base_url=f"{endpoint.url}/v1", api_key="none") as client:
            return [model.id async for model in client.models.list()], await client.models.retrieve("tiny")

    names, model = endpoint(scenario, server=True, generating=False)
    assert names == [model.id] == ["tiny"]
    assert isinstance(model.sizes, list)
