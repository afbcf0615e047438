"""`rayramid serve`: an endpoint from a spec."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, cast

import typer
import yaml

from rayramid.platform.cluster import connect
from rayramid.platform.commands.options import Address, Overrides, SpecFile
from rayramid.platform.console import result, say
from rayramid.platform.endpoint import serve_config
from rayramid.platform.interruption import interruptible
from rayramid.platform.spec import load_spec

if TYPE_CHECKING:
    from rayramid.serve.spec import ServeSpec

ENDING = "ending; every video in the making is left at its next unit, once more does not wait for that"
LOOK_S = 0.1


def serve(
    spec: SpecFile,
    config: Annotated[
        bool, typer.Option("--config", help="Start nothing; write the config for Ray's 'serve deploy'.")
    ] = False,
    overrides: Overrides = None,
    address: Address = None,
) -> None:
    """Serve the model of a spec over OpenAI's Videos API, until interrupted; started again, it goes on with all videos.

    Example: rayramid serve infra/specs/serve-local.yaml --set port=8080
    """
    serve_spec = cast("ServeSpec", load_spec(spec, overrides or [], kind="serve"))
    if config:
        result(yaml.safe_dump(serve_config(serve_spec), sort_keys=False).rstrip())
        return
    from rayramid.serve.app import check, deploy, stop

    check(serve_spec)
    say("starting Ray and the endpoint, about half a minute")
    with connect(address):
        url = deploy(serve_spec)
        with interruptible(ENDING) as interruption:
            try:
                result(f"serving {serve_spec.model or ', '.join(serve_spec.models)}")
                result(f"at {url}/v1  (OpenAI's Videos API; described by {url}/openapi.json)")
                if serve_spec.key_ring is None:
                    result(f"try: curl {url}/v1/videos -F prompt='a red circle moves right'")
                else:
                    result(f"with API keys; make one by: rayramid keys create {spec} NAME")
                say("Ctrl-C ends it")
                while not interruption:
                    time.sleep(LOOK_S)
            finally:
                stop()
            sys.exit(interruption.code)
