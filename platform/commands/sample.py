"""`rayramid sample`: one video, made in this process or by an endpoint."""

import itertools
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from rayramid.models.errors import UserError
from rayramid.models.stores.shipped import SPRITES
from rayramid.platform.console import progress, result


def sample(
    prompt: Annotated[str, typer.Option(help="What the video shows.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The mp4 to write.")] = Path("sample.mp4"),
    model: Annotated[
        str | None,
        typer.Option(metavar="DIR", help=f"A model folder or URL; {SPRITES}, which is shipped, if left out."),
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="An endpoint, in place of --model.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="The model's default if left out.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length; the model's default if left out.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a video; drawn if left out.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps of each stage.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale of the first unit.")] = None,
    video_guidance: Annotated[float | None, typer.Option(help="Guidance scale of later units.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What guidance leads away from.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image that the video starts with.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; cuda where there is one.")] = None,
) -> None:
    """Make one video from a prompt.

    Example: rayramid sample --prompt 'a red circle moves slowly left on a grey background' --out sample.mp4
    """
    if model is not None and url is not None:
        raise UserError("name either a model folder by --model or an endpoint by --url")
    if image is not None and not image.is_file():
        raise UserError(f"{image}: no such image")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out}: the folder {out.absolute().parent} does not exist")
    if url is not None:
        from rayramid.serve.client import Client
        from rayramid.serve.wire import CreateVideo

        try:
            wanted = CreateVideo(
                prompt=prompt,
                size=size,
                seconds=seconds,
                seed=seed,
                steps=steps,
                guidance_scale=guidance,
                video_guidance_scale=video_guidance,
                negative_prompt=negative_prompt,
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{first['loc'][0]}: {first['msg']}") from error
        with Client(url, os.environ.get("RAYRAMID_API_KEY")) as client, progress() as update:
            video = client.create(wanted, image=image)
            client.wait(video, on_progress=lambda event: update("video", event.progress, 100))
            client.save(video.id, out)
        result(f"{out}  {video.size}, {video.frames} frames, seed {video.seed}")
        return

    import numpy as np
    import torch
    from PIL import Image

    from rayramid.models.brief import parse_size, write_brief
    from rayramid.models.checkpoint import load_model
    from rayramid.models.cpu import compute_on_cpu
    from rayramid.models.media.write import write_mp4
    from rayramid.models.precision import sampling_dtype
    from rayramid.models.provenance import provenance
    from rayramid.models.render import render
    from rayramid.serve.job import Model

    compute_on_cpu()
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_model(model or SPRITES, where, sampling_dtype(where))
    brief = write_brief(
        loaded.card,
        prompt,
        size=parse_size(size) if size else None,
        seconds=seconds,
        seed=seed,
        steps=steps,
        guidance=guidance,
        video_guidance=video_guidance,
        negative_prompt=negative_prompt,
    )
    image_HWC = None if image is None else np.asarray(Image.open(image).convert("RGB"))
    with progress() as update:
        units = render(
            loaded, brief, image_HWC=image_HWC, on_progress=lambda done, total: update("denoising", done, total)
        )
        made_by = Model.of(loaded.card, None)
        said = provenance(model=made_by.name, model_version=made_by.version, seed=brief.seed, prompts=brief.prompts)
        write_mp4(out, itertools.chain.from_iterable(units), brief.fps, metadata={"comment": said})
    result(f"{out}  {brief.width}x{brief.height}, {brief.frames} frames, seed {brief.seed}")
