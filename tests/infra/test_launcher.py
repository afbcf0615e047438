"""The cluster that Ray's launcher makes on AWS, against Ray's own schema and checks."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import fillout_defaults, validate_config

AWS = Path(__file__).parents[2] / "infra" / "clusters" / "aws.yaml"
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


@pytest.fixture
def config() -> dict[str, Any]:
    loaded = yaml.safe_load(AWS.read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    jsonschema.validate(config, SCHEMA)
    validate_config(fillout_defaults(config))


def test_rays_schema_refuses_a_misspelt_key(config: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute'"):
        jsonschema.validate({**config, "idle_timeout_minute": 3}, SCHEMA)


def test_the_head_only_conducts_and_workers_come_from_zero(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert {name: node["min_workers"] for name, node in types.items()} == {"data": 0, "gpu": 0}
    assert sum(node["max_workers"] for node in types.values()) <= config["max_workers"]


def test_ray_is_closed_to_who_has_no_token_and_no_key_stands_in_the_file(config: dict[str, Any]) -> None:
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])
    assert not any(word in AWS.read_text() for word in ("AWS_SECRET", "AWS_ACCESS_KEY", "0.0.0.0"))
