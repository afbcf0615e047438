"""An endpoint as Ray Serve's config describes it: for `serve deploy`, and for a RayService of KubeRay."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from rayramid.platform.spec import parse_spec

if TYPE_CHECKING:
    from ray.serve import Application

    from rayramid.serve.spec import ServeSpec


# A node's own address is not known before it runs; what may reach it is up to the cluster's network, and to API keys.
HOST = "0.0.0.0"  # noqa: S104


def serve_config(spec: "ServeSpec") -> dict[str, Any]:
    """The Serve config that runs the endpoint of `spec` on a cluster; it takes the port that the spec names.

    Raises:
        UserError: the endpoint would let everybody in.
    """
    fields = {"kind": "serve", **spec.model_dump(mode="json", exclude_defaults=True, exclude={"host", "port"})}
    _reachable(fields, "--config")
    return {
        "http_options": {"host": HOST, "port": spec.port},
        "applications": [
            {
                "name": "rayramid",
                "route_prefix": "/",
                "import_path": f"{__name__}:application",
                "args": fields,
                "logging_config": {"enable_access_log": False},
            }
        ],
    }


def application(args: Mapping[str, Any]) -> "Application":
    """What a Serve config imports: `args` are a serve spec, with `${NAME}` from the nodes' environment.

    Raises:
        UserError: the spec is wrong or lets everybody in, or there is no model where it says.
    """
    from rayramid.serve import app

    return app.application(_reachable(args, "args"))


def _reachable(fields: Mapping[str, Any], where: str) -> "ServeSpec":
    return cast("ServeSpec", parse_spec({**fields, "host": HOST}, where=where, kind="serve"))
