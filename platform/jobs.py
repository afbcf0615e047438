"""Specs as Ray jobs: the installed package and the spec travel, the repository and secrets do not."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rayramid.models.errors import UserError
from rayramid.platform.credentials import is_secret
from rayramid.platform.exit_codes import MISTAKE
from rayramid.platform.job_server import PREFIX, Job, JobServer
from rayramid.platform.wheel import build_wheel

# What a job's driver runs for each kind of spec, and the spec's key that names where its results go.
COMMANDS: Mapping[str, str] = {
    "data": "data run",
    "train": "train",
    "vae": "train",
    "eval": "eval",
    "suite": "eval",
    "distances": "eval",
}
OUTPUTS: Mapping[str, str] = {
    "data": "root",
    "train": "output",
    "vae": "output",
    "eval": "output",
    "suite": "output",
    "distances": "output",
}
# Ray kills a job 3 s after it asked it to stop; saving a checkpoint may take longer.
STOP_WAIT_S = 120


@dataclass(frozen=True)
class Driver:
    """What the process that conducts a job asks of its node; nothing puts it on the head.

    Attributes:
        cpus: of the node.
        gpus: of the node.
        memory_gib: of the node.
        resources: amounts of a cluster's own resources, by name.
    """

    cpus: float = 0.0
    gpus: float = 0.0
    memory_gib: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """As arguments of Ray's `submit_job`."""
        return {
            "entrypoint_num_cpus": self.cpus or None,
            "entrypoint_num_gpus": self.gpus or None,
            "entrypoint_memory": round(self.memory_gib * 2**30) or None,
            "entrypoint_resources": dict(self.resources) or None,
        }


def submit(
    spec: BaseModel,
    address: str,
    *,
    environment: Mapping[str, str] | None = None,
    driver: Driver = Driver(),
    retries: int = 0,
    on_log: Callable[[str], None] | None = None,
) -> Job:
    """Runs `spec` as a Ray job; follows it to its end when `on_log` is given.

    The submission id follows from the spec and the code, so submitting the same again while it runs finds the running
    job; once it has ended, a further attempt is started, which resumes from what was committed.

    Args:
        spec: a validated spec; its paths are absolute or URLs, and must be reachable from the cluster.
        address: the job server, `http://host:8265`.
        environment: variables for the job's processes, which the job server shows.
        driver: what the conducting process asks of its node.
        retries: a job that is followed and fails is started again so many times, unless the mistake is the user's.
        on_log: gets each piece of the job's log.

    Raises:
        UserError: the kind can't be submitted, a variable is a secret, or no job server answers.
    """
    fields = spec.model_dump(mode="json")
    kind = str(fields["kind"])
    if kind not in COMMANDS:
        raise UserError(
            f"a spec of kind '{kind}' is no job, since an endpoint does not end; 'rayramid serve SPEC --config' writes"
            " what Ray's 'serve deploy' and KubeRay's RayService take"
        )
    environment = environment or {}
    for name, value in environment.items():
        if is_secret(name, value):
            raise UserError(
                f"--env {name}: a secret would be shown by the job server; give it to the cluster's nodes, as"
                " docs/clusters.md tells"
            )
    server = JobServer(address)
    with tempfile.TemporaryDirectory(prefix="rayramid-submit-") as folder:
        wheel, work, digest = _pack(fields, Path(folder))
        options = {
            "runtime_env": {
                "py_modules": [str(wheel)],
                "working_dir": str(work),
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **environment},
            },
            "metadata": {"kind": kind, "output": str(fields[OUTPUTS[kind]])},
            **driver.options(),
        }
        for left in range(retries, -1, -1):
            job_id, is_new = _next_id(server, f"{PREFIX}{kind}-{digest}")
            if is_new:
                server.start(job_id, f"python -m rayramid.platform.cli {COMMANDS[kind]} spec.yaml", **options)
            if on_log is None:
                break
            job = server.follow(job_id, on_log)
            if job.status != "FAILED" or job.exit_code == MISTAKE:
                break
            if left:
                on_log(f"{job.id} failed: {job.message}; it is started again, and goes on from what was committed\n")
    return server.job(job_id)


def _pack(fields: Mapping[str, Any], folder: Path) -> tuple[Path, Path, str]:
    """What travels: the package's wheel and a folder with the spec; and a digest of both."""
    wheel = build_wheel(folder)
    work = folder / "work"
    work.mkdir()
    # JSON is YAML, and leaves no doubt about types.
    (work / "spec.yaml").write_text(json.dumps(fields, indent=2), encoding="utf-8")
    return wheel, work, hashlib.sha256(wheel.read_bytes() + (work / "spec.yaml").read_bytes()).hexdigest()[:12]


def _next_id(server: JobServer, stem: str) -> tuple[str, bool]:
    """`stem` or its first attempt `stem-N` that has not ended; and whether it is still to be started."""
    ended = {job.id: job.has_ended for job in server.jobs()}
    attempt = 1
    job_id = stem
    while ended.get(job_id):
        attempt += 1
        job_id = f"{stem}-{attempt}"
    return job_id, job_id not in ended
