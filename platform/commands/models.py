"""`rayramid models`: which versions an endpoint's models are, without a restart."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.commands.options import AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, result
from rayramid.platform.spec import load_spec

if TYPE_CHECKING:
    from rayramid.serve.releases import Release, Releases, Version
    from rayramid.serve.spec import ServeSpec

app = typer.Typer(no_args_is_help=True, help="Promote, try out and roll back versions of an endpoint's models.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="What clients call the model.", show_default=False)]
FOLDER = "A model folder, or an adapter's, which goes over the base of the version that is stable."


@app.command("list")
def list_models(spec: SpecFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show what every name stands for, and what it stood for before.

    Example: rayramid models list infra/specs/serve-models.yaml
    """
    releases = _releases(spec, overrides)
    found = {name: releases.history(name) for name in releases.names()}
    if as_json:
        emit_json({name: [release.model_dump() for release in history] for name, history in found.items()})
        return
    for name, history in found.items():
        for release in history:
            date = datetime.fromtimestamp(release.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
            result(f"{name}  {date}  {release.by:8}  {_shown(release)}")


@app.command()
def promote(
    spec: SpecFile,
    name: Name,
    folder: Annotated[str | None, typer.Argument(help=FOLDER + " The canary when left out.")] = None,
    overrides: Overrides = None,
) -> None:
    """Let a version make all new videos, within seconds. Those in the making stay with the version that they have.

    Example: rayramid models promote infra/specs/serve-models.yaml sprites runs/local/train/model
    """
    releases = _releases(spec, overrides)
    _say(name, releases.promote(name, None if folder is None else _candidate(releases, name, folder)))


@app.command()
def canary(
    spec: SpecFile,
    name: Name,
    folder: Annotated[str, typer.Argument(help=FOLDER, show_default=False)],
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the new videos.")] = 0.05,
    overrides: Overrides = None,
) -> None:
    """Let a version make a share of the new videos, chosen by their ids.

    Example: rayramid models canary infra/specs/serve-models.yaml sprites runs/local/train/model --share 0.1
    """
    releases = _releases(spec, overrides)
    _say(name, releases.canary(name, _candidate(releases, name, folder), share))


@app.command()
def rollback(spec: SpecFile, name: Name, overrides: Overrides = None) -> None:
    """End the canary; where there is none, go back to the version that was stable before.

    Example: rayramid models rollback infra/specs/serve-models.yaml sprites
    """
    _say(name, _releases(spec, overrides).roll_back(name))


def _releases(path: SpecFile, overrides: Overrides) -> "Releases":
    from rayramid.serve.releases import Releases

    spec = cast("ServeSpec", load_spec(path, overrides or [], kind="serve"))
    releases = Releases(spec.store)
    releases.refresh()
    if not releases.names():
        raise UserError(f"{spec.store}: no endpoint has released a model there yet; start one first")
    return releases


def _candidate(releases: "Releases", name: str, folder: str) -> "Version":
    from rayramid.serve.releases import candidate

    return candidate(storage.absolute(folder), releases.newest(name).stable)


def _say(name: str, release: "Release") -> None:
    result(f"{name}: {_shown(release)}")


def _shown(release: "Release") -> str:
    shown = _place(release.stable)
    return f"{shown}; {release.share:.1%} {_place(release.canary)}" if release.canary else shown


def _place(version: "Version") -> str:
    return f"{version.id} {version.folder}" + (f" with {version.adapter}" if version.adapter else "")
