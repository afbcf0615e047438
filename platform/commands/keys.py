"""`rayramid keys`: who may use an endpoint."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from rayramid.models.errors import UserError
from rayramid.platform.commands.options import AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, result, say
from rayramid.platform.spec import load_spec

if TYPE_CHECKING:
    from rayramid.serve.keys import Key, KeyRing
    from rayramid.serve.spec import ServeSpec

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the API keys of an endpoint.")
KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `rayramid keys list` shows it.", show_default=False)]


@app.command()
def create(
    spec: SpecFile,
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.", show_default=False)],
    overrides: Overrides = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Jobs that have not ended.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    streams: Annotated[int | None, typer.Option(min=1, help="Connections that watch.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Of the transformer.")] = None,
) -> None:
    """Make a key, which is shown once. Limits that are left out are the spec's.

    Example: rayramid keys create infra/specs/serve-public.yaml alice --jobs 4
    """
    from rayramid.serve.spec import KeyLimits

    limits = KeyLimits(
        jobs=jobs, requests_per_minute=requests_per_minute, streams=streams, tokens_per_day=tokens_per_day
    )
    key, sent = _ring(spec, overrides).create(name, limits)
    say(f"key {key.id} of {name}; this is the only time that these are shown:")
    result(f"api key        {sent}")
    result(f"webhook secret {key.webhook_secret}")


@app.command("list")
def list_keys(spec: SpecFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show the keys, but not what opens them.

    Example: rayramid keys list infra/specs/serve-public.yaml
    """
    keys = _ring(spec, overrides).all()
    if as_json:
        emit_json([key.model_dump(exclude={"digest", "webhook_secret"}) for key in keys])
        return
    for key in keys:
        result(f"{key.id}  {_date(key.created_at)}  {_state(key)}  {key.name}")
    if not keys:
        say("no keys yet")


@app.command()
def revoke(spec: SpecFile, key_id: KeyId, overrides: Overrides = None) -> None:
    """Let a key open nothing from now on, within seconds; its videos stay.

    Example: rayramid keys revoke infra/specs/serve-public.yaml 4f2a91c0
    """
    result(f"revoked {_ring(spec, overrides).revoke(key_id).name}'s key {key_id}")


def _ring(path: SpecFile, overrides: Overrides) -> "KeyRing":
    from rayramid.serve.keys import KeyRing

    spec = cast("ServeSpec", load_spec(path, overrides or [], kind="serve"))
    if spec.key_ring is None:
        raise UserError(f"{path}: keys: off lets everybody in; take that line out first")
    return KeyRing(spec.key_ring)


def _date(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d")


def _state(key: "Key") -> str:
    if key.revoked_at is not None:
        return f"revoked {_date(key.revoked_at)}"
    own = key.limits.model_dump(exclude_none=True)
    return ", ".join(f"{name} {value}" for name, value in own.items()) or "active"
