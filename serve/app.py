"""Starting an endpoint on Ray Serve."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from rayramid.models import storage
from rayramid.models.card import load_card
from rayramid.models.errors import UserError
from rayramid.serve.autoscaling import Backlog
from rayramid.serve.listening import ListeningGateway
from rayramid.serve.releases import Releases, versions_of
from rayramid.serve.replicas import BrokerReplica, Gateway, Sampler, Text
from rayramid.serve.safety import resolve
from rayramid.serve.spec import AutoscalingOptions, ServeSpec

log = logging.getLogger(__name__)

APP = "rayramid"
# Ray's label of a node's id.
NODE = "ray.io/node-id"
# A gateway and a broker only wait for others.
LIGHT_CPUS = 0.05
STREAMS = 1000
READY_S = 120.0
DRAIN_S = 60.0
# Over which Serve averages what samplers report; more than the time between two reports.
LOOK_BACK_S = 15.0


def application(spec: ServeSpec, *, here: bool = False) -> serve.Application:
    """The deployments of an endpoint, bound to each other; what the spec names is released in the store.

    Args:
        spec: of the endpoint.
        here: its gateways listen at the spec's address on this node; else Serve's proxies listen, on every node.

    Raises:
        UserError: no model is where the spec says.
    """
    versions, releases = versions_of(spec), Releases(spec.store)
    for name, version in versions.items():
        releases.follow_spec(name, version)
    names = tuple(versions)
    # Work that a stopped replica leaves is taken up from the store, so nothing waits long for it; `stop` lets it leave
    # off at its units' edges before.
    options = {
        "max_constructor_retry_count": 3,
        "graceful_shutdown_timeout_s": 2.0,
        "graceful_shutdown_wait_loop_s": 0.1,
    }
    text = serve.deployment(
        Text,
        ray_actor_options={"num_cpus": spec.text.num_cpus, "num_gpus": spec.text.num_gpus},
        max_ongoing_requests=STREAMS,
        **options,
    ).bind(spec, names)
    scaling = spec.sampler.autoscaling
    sampler = serve.deployment(
        Sampler,
        num_replicas=None if scaling else spec.sampler.replicas,
        autoscaling_config=autoscaling_config(scaling) if scaling else None,
        ray_actor_options={"num_cpus": spec.sampler.num_cpus, "num_gpus": spec.sampler.num_gpus},
        # A few more than run, so that questions about readiness pass.
        max_ongoing_requests=spec.sampler.max_sessions + 4,
        **options,
    ).bind(spec, names, text)
    light = {"ray_actor_options": {"num_cpus": LIGHT_CPUS}, "max_ongoing_requests": STREAMS, **options}
    broker = serve.deployment(BrokerReplica, name="Broker", **light).bind(spec, sampler)
    gateways = {**light, "name": "Gateway", "num_replicas": spec.gateways}
    if not here:
        return serve.deployment(serve.ingress()(Gateway), **gateways).bind(spec, names, broker)
    # Without a CPU of their own: this node may be a head that is given none.
    gateways["ray_actor_options"] = {"num_cpus": 0, "label_selector": {NODE: ray.get_runtime_context().get_node_id()}}
    return serve.deployment(ListeningGateway, **gateways).bind(spec, names, broker)


def autoscaling_config(options: AutoscalingOptions) -> AutoscalingConfig:
    """What Serve is told of the sampler's bounds."""
    return AutoscalingConfig(
        min_replicas=options.min,
        max_replicas=options.max,
        upscale_delay_s=options.up_after_seconds,
        downscale_delay_s=options.down_after_seconds,
        look_back_period_s=LOOK_BACK_S,
        policy=AutoscalingPolicy(policy_function=Backlog, policy_kwargs={"within_s": options.backlog_seconds}),
    )


def check(spec: ServeSpec) -> None:
    """Find out without Ray, in a moment, whether the endpoint could start.

    Raises:
        UserError: no model, or one with fewer heads than a sampler has ranks; no such safety hook, a store that can't
            be written, or a port that can't be taken.
    """
    for name, version in versions_of(spec).items():
        heads = load_card(version.folder).dit["heads"]
        if spec.sampler.ranks > heads:
            raise UserError(f"sampler.ranks is {spec.sampler.ranks}, but {name} has {heads} heads for them to share")
    for judge in (spec.safety.prompts, spec.safety.frames):
        if judge is not None and not judge.hook.startswith("http"):
            resolve(judge.hook)
    storage.check_writable(spec.store)
    free_port(spec.host, spec.port)


def deploy(spec: ServeSpec) -> str:
    """Start the endpoint in the Ray cluster that this process is connected to; returns its URL when it can generate.

    Its gateways listen on this node, wherever the rest runs. `stop` ends it; jobs that have not ended then go on when
    an endpoint with the same store starts.

    Raises:
        UserError: what `check` finds, or Serve already runs in this cluster.
    """
    if _serve_runs():
        raise UserError(
            "Ray Serve already runs in this Ray cluster; end it with `serve shutdown -y` or use another one"
        )
    check(spec)
    with reserved(spec.host, spec.port) as port:
        url = f"http://{spec.host}:{port}"
        serve.start(proxy_location="Disabled")
        try:
            here = application(spec.model_copy(update={"port": port}), here=True)
            serve.run(here, name=APP, route_prefix=None, logging_config={"enable_access_log": False})
            _wait(url)
        except BaseException:
            serve.shutdown()
            raise
    log.info("endpoint ready", extra={"url": url, "store": spec.store})
    return url


def stop() -> None:
    """End the endpoint when every video in the making has come to its next unit's edge."""
    try:
        serve.get_deployment_handle("Broker", APP).drain.remote().result(timeout_s=DRAIN_S)
    except TimeoutError:
        log.warning("units took too long; they will be made again", extra={"seconds": DRAIN_S})
    finally:
        serve.shutdown()


def _serve_runs() -> bool:
    return any(actor["name"] == "SERVE_CONTROLLER_ACTOR" for actor in ray.util.list_named_actors(all_namespaces=True))


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """The port, or a free one for 0, which until the context ends nobody gets who asks for any free one.

    Raises:
        UserError: it can't be taken.
    """
    port = free_port(host, port)
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind((host, port))
        yield port


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0; nobody listens there, not even one who would share it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            message = (
                f"{host}:{port} can't be used: {error.strerror}; choose another host or port, or port 0 for a free one"
            )
            raise UserError(message) from error
        return int(probe.getsockname()[1])


def _wait(url: str) -> None:
    host = url.replace("://0.0.0.0:", "://127.0.0.1:")
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{host}/ready", timeout=10).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            log.debug("endpoint not up yet", extra={"url": url})
        time.sleep(0.2)
    raise TimeoutError(f"{url} was not ready within {READY_S:.0f} s")
