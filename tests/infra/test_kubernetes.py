"""The Kubernetes objects as kustomize builds them, against the schemas of Kubernetes and KubeRay, and each other."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from rayramid.platform.endpoint import application, serve_config
from rayramid.platform.spec import load_spec, parse_spec

OVERLAYS = Path(__file__).parents[2] / "infra" / "kubernetes" / "overlays"
NAMES = ("local", "gpu")
Object = dict[str, Any]

kustomized = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, which has kustomize")


@cache
def build(overlay: str) -> tuple[Object, ...]:
    """Every object of an overlay."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(OVERLAYS / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, *kinds: str) -> list[Object]:
    return [each for each in build(overlay) if each["kind"] in kinds]


def ray_objects(overlay: str) -> list[Object]:
    return of_kind(overlay, "RayJob", "RayService")


def cluster(ray_object: Object) -> Object:
    """Of a RayJob or a RayService."""
    spec = ray_object["spec"]
    found = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    assert isinstance(found, dict)
    return found


def pods(ray_object: Object) -> list[Object]:
    """The head's and the workers' pods."""
    ray = cluster(ray_object)
    return [group["template"]["spec"] for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"])]


def strict(schema: Object) -> Object:
    """A CRD's schema as JSON Schema that refuses unknown keys, as the API server does with strict validation."""
    kept = {key: schema[key] for key in ("type", "enum", "required", "pattern", "minimum", "maximum") if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
    if "properties" in schema:
        kept["properties"] = {name: strict(inner) for name, inner in schema["properties"].items()}
        kept["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = strict(schema["items"])
    return kept


@cache
def crd(kind: str) -> Object:
    """KubeRay's schema of a kind, from its own files."""
    folder = os.environ.get("RAYRAMID_CRDS")
    if folder is None:
        pytest.skip("RAYRAMID_CRDS names no folder with KubeRay's CRDs (helm-chart/kuberay-operator/crds)")
    text = (Path(folder) / f"ray.io_{kind.lower()}s.yaml").read_text()
    versions = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"]
    (schema,) = (version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1")
    return strict(schema)


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_kuberays_schemas_accept_rays_kinds(overlay: str) -> None:
    kinds = {each["kind"] for each in ray_objects(overlay)}
    assert kinds == {"RayJob", "RayService"}
    for each in ray_objects(overlay):
        jsonschema.validate(each, crd(each["kind"]))


@kustomized
def test_kuberays_schemas_refuse_a_misspelt_key_and_a_wrong_type() -> None:
    job = of_kind("gpu", "RayJob")[0]
    with pytest.raises(jsonschema.ValidationError, match="backOffLimit"):
        jsonschema.validate({**job, "spec": {**job["spec"], "backOffLimit": 1}}, crd("RayJob"))
    with pytest.raises(jsonschema.ValidationError, match="'3' is not of type 'integer'"):
        jsonschema.validate({**job, "spec": {**job["spec"], "backoffLimit": "3"}}, crd("RayJob"))


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_kubernetes_own_schemas_accept_the_other_kinds_and_every_pod(overlay: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for each in build(overlay):
        if not each["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(each, "1.32", strict=True)
    for ray_object in ray_objects(overlay):
        for pod in pods(ray_object):
            kubernetes_validate.validate(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}, "1.32", strict=True
            )


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_serve_accepts_the_config_and_knows_every_key_of_it(overlay: str) -> None:
    (service,) = of_kind(overlay, "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert config == yaml.safe_load((OVERLAYS / overlay / "serve.yaml").read_text())
    known = ServeDeploySchema.model_validate(config).model_dump(exclude_unset=True)
    assert_known(config, known)


def assert_known(given: Any, known: Any) -> None:
    """Serve ignores keys that it does not know: they are not in what it keeps."""
    if isinstance(given, dict):
        assert set(given) <= set(known)
        for key in given:
            assert_known(given[key], known[key])
    elif isinstance(given, list):
        for one, other in zip(given, known, strict=True):
            assert_known(one, other)


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_the_endpoint_is_built_from_the_config_with_the_pods_variables(
    overlay: str, model_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "model").symlink_to(model_folder)
    monkeypatch.setenv("RAYRAMID_ROOT", str(tmp_path))
    (service,) = of_kind(overlay, "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (endpoint,) = config["applications"]
    assert endpoint["import_path"] == f"{application.__module__}:{application.__name__}"
    assert application(endpoint["args"])._bound_deployment.name == "Gateway"

    spec = parse_spec(endpoint["args"], where="args", kind="serve")
    written = serve_config(spec)  # type: ignore[arg-type]
    assert {**written, "applications": [{**written["applications"][0], "args": endpoint["args"]}]} == config
    gpus = [gpus_of(group["template"]["spec"]) for group in cluster(service)["workerGroupSpecs"]]
    assert max(gpus) >= spec.model_dump()["sampler"]["num_gpus"]


def gpus_of(pod: Object) -> int:
    return int(pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0))


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_jobs_run_specs_that_are_valid_and_fit_their_nodes(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (OVERLAYS / overlay / "settings.env").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            monkeypatch.setenv(name, value)
    (specs,) = (each for each in of_kind(overlay, "ConfigMap") if each["metadata"]["name"].startswith("rayramid-specs"))
    for job in of_kind(overlay, "RayJob"):
        command, path = job["spec"]["entrypoint"].rsplit(" ", 1)
        spec = load_spec(
            OVERLAYS / overlay / Path(path).name, kind={"rayramid data run": "data", "rayramid train": "train"}[command]
        )
        assert Path(path).name in specs["data"]
        (head,) = (pod for pod in pods(job)[:1])
        assert {"name": "specs", "configMap": {"name": specs["metadata"]["name"]}} in head["volumes"]
        workers = spec.model_dump()["workers"]
        if spec.model_dump()["kind"] == "train" and workers["gpus"]:
            (group,) = cluster(job)["workerGroupSpecs"]
            assert workers["count"] <= group["maxReplicas"] * gpus_of(group["template"]["spec"])


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_gpu_groups_start_from_zero_and_heads_only_conduct(overlay: str) -> None:
    for each in ray_objects(overlay):
        head, *workers = pods(each)
        assert cluster(each)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert gpus_of(head) == 0
        for group, pod in zip(cluster(each)["workerGroupSpecs"], workers, strict=True):
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            if gpus_of(pod):
                assert group["minReplicas"] == group["replicas"] == 0
                assert pod["containers"][0]["image"].endswith("-cuda")


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_no_pod_is_special_and_memory_is_never_overcommitted(overlay: str) -> None:
    for each in ray_objects(overlay):
        for pod in pods(each):
            (container,) = pod["containers"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert all(pod["automountServiceAccountToken"] is False for pod in pods(each)[1:])


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_a_pod_has_time_for_what_it_does_before_it_ends(overlay: str) -> None:
    for each in ray_objects(overlay):
        for pod in pods(each)[1:]:
            lifecycle = pod["containers"][0].get("lifecycle")
            if lifecycle:
                command = lifecycle["preStop"]["exec"]["command"][-1]
                assert "ray drain-node" in command
                assert int(command.rsplit("sleep ", 1)[1]) < pod["terminationGracePeriodSeconds"]


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_secrets_are_named_and_never_stand_there(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    for each in ray_objects(overlay):
        assert cluster(each)["authOptions"] == {"mode": "token"}
        for pod in pods(each):
            assert "env" not in pod["containers"][0]
            assert {"secretRef": {"name": "rayramid-secrets", "optional": True}} in pod["containers"][0]["envFrom"]
    (service,) = of_kind(overlay, "RayService")
    assert list(cluster(service)["gcsFaultToleranceOptions"]["redisPassword"]) == ["valueFrom"]


@kustomized
@pytest.mark.parametrize("overlay", NAMES)
def test_every_pod_of_ray_is_behind_the_network_policy_and_every_object_is_of_a_part(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in policies]
    for each in ray_objects(overlay):
        ray = cluster(each)
        for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"]):
            labels = group["template"]["metadata"]["labels"]
            assert any(wanted.items() <= labels.items() for wanted in selected)
    assert {each["metadata"]["labels"]["part"] for each in build(overlay)} == {"common", "data", "train", "serve"}
