"""An endpoint from a Serve config, as `serve deploy` and KubeRay start it, on a cluster that runs beside the test."""

import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from endless import post_without_end
from ray_heads import free_port, ray_head

from rayramid.models.media.read import probe
from rayramid.serve.client import Client
from rayramid.serve.wire import CreateVideo

RAYRAMID = [sys.executable, "-m", "rayramid.platform.cli"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_serve_config_writes_makes_videos(
    model_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    spec, config = tmp_path / "serve.yaml", tmp_path / "config.yaml"
    spec.write_text(
        f"kind: serve\nmodel: {model_folder}\nstore: {tmp_path / 'store'}\nport: {port}\n"
        "limits: {upload_bytes: 1000000}\n"
    )
    written = subprocess.run(
        [*RAYRAMID, "serve", str(spec), "--config"], capture_output=True, text=True, check=True
    ).stdout
    # What an overlay's file says: the nodes know what it means.
    config.write_text(written.replace(str(tmp_path), "${RAYRAMID_ROOT}"))
    assert "store: ${RAYRAMID_ROOT}/store" in config.read_text()

    with ray_head({"RAYRAMID_ROOT": str(tmp_path)}) as head:
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
        serve = Path(sys.executable).with_name("serve")
        deployed = subprocess.run(
            [serve, "deploy", "--address", head.address, str(config)], capture_output=True, text=True, check=False
        )
        assert deployed.returncode == 0, deployed.stderr
        url = f"http://127.0.0.1:{port}"
        while not is_ready(url):
            status = subprocess.run(
                [serve, "status", "--address", head.address], capture_output=True, text=True, check=False
            ).stdout
            assert "DEPLOY_FAILED" not in status, status
            time.sleep(1)
        key = subprocess.run(
            [*RAYRAMID, "keys", "create", str(spec), "alice"], capture_output=True, text=True, check=True
        )
        (sent,) = re.findall(r"api key\s+(\S+)", key.stdout)
        with Client(url, sent) as client:
            video = client.create(CreateVideo(prompt="a red circle", size="64x64", seconds=1, seed=3))
            # Serve's proxies let pieces through as they come, and large bodies no further than the gateway takes them.
            watched = sum(len(frames) for frames in client.frames(video.id))
            client.save(client.wait(video).id, tmp_path / "video.mp4")
        status, bytes_sent = post_without_end(url, sent)
        assert is_ready(url)
    assert (watched, probe(str(tmp_path / "video.mp4")).frames) == (8, 8)
    assert status in (413, None)
    assert bytes_sent < 200 * 2**20


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=10).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
