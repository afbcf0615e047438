"""`rayramid keys`, and when an endpoint may be open."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayramid.models.errors import UserError
from rayramid.platform.cli import app
from rayramid.platform.spec import load_spec
from rayramid.serve.keys import KeyRing


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    path.write_text(f"kind: serve\nmodel: m\nstore: {tmp_path / 'store'}\n")
    return path


def rayramid(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_key_is_made_listed_and_revoked(spec: Path, tmp_path: Path) -> None:
    printed = rayramid("keys", "create", spec, "alice", "--jobs", 4)
    sent, webhook_secret = (line.split()[-1] for line in printed.splitlines())
    ring = KeyRing(str(tmp_path / "store" / "access"))
    ring.refresh()
    key = ring.find(sent)
    assert key is not None
    assert (key.name, key.limits.jobs, key.limits.requests_per_minute) == ("alice", 4, None)
    assert key.webhook_secret == webhook_secret
    listed = rayramid("keys", "list", spec)
    assert key.id in listed
    assert sent.rpartition("_")[2] not in listed
    assert "jobs 4" in listed
    rayramid("keys", "revoke", spec, key.id)
    (shown,) = json.loads(rayramid("keys", "list", spec, "--json"))
    assert shown["revoked_at"] >= shown["created_at"]
    assert "digest" not in shown


def test_what_is_no_key_can_not_be_revoked(spec: Path) -> None:
    for name in ("0" * 16, "../serve", ""):
        with pytest.raises(UserError, match="no key has the id"):
            rayramid("keys", "revoke", spec, name)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_an_endpoint_without_keys_listens_on_loopback(spec: Path, host: str) -> None:
    assert load_spec(spec, ["keys=off", f"host='{host}'"]).host == host  # type: ignore[attr-defined]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "", "127.0.0.1.example.com"])
def test_an_endpoint_without_keys_listens_nowhere_else(spec: Path, host: str) -> None:
    with pytest.raises(UserError, match=r"keys: off lets everybody in, so host must be loopback") as refused:
        load_spec(spec, ["keys=off", f"host='{host}'"])
    assert "\n" not in str(refused.value)
    assert load_spec(spec, [f"host='{host}'"])


def test_an_open_endpoint_has_no_keys(spec: Path) -> None:
    with pytest.raises(UserError, match="keys: off"):
        rayramid("keys", "list", spec, "--set", "keys=off")
