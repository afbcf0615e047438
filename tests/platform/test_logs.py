"""Log lines as JSON: of a command, and of the workers that it starts, with what they are about."""

import json
import logging
import os
import subprocess
import sys

import pytest

from rayramid.models.errors import UserError
from rayramid.platform import logs

PROGRAM = """
import logging, sys
import ray
from rayramid.platform.cluster import connect
from rayramid.platform.console import progress, say

def work():
    logging.getLogger("rayramid.pipelines.worker").info("shard written", extra={"shard": "s1", "job": "shots"})

say("starting")
with connect(sys.argv[1]), progress() as update:
    update("shots", 1, 2)
    ray.get(ray.remote(num_cpus=0.1)(work).remote())
    logging.getLogger("rayramid.pipelines.curate").info("curation done", extra={"run": "r1"})
    while input() != "end":
        pass
"""


def test_commands_and_their_workers_write_json_lines_with_ids_and_without_secrets(ray_cluster):
    secret = "planted-5e41"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, ray_cluster],
        env={**os.environ, logs.VARIABLE: "json", "AWS_SECRET_ACCESS_KEY": secret},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    wanted, found, text = {"starting", "progress", "shard written", "curation done"}, {}, ""
    # A worker's line comes by way of Ray's log monitor, with the worker's id before it.
    while not wanted <= found.keys() and (line := process.stdout.readline()):
        text += line
        if "{" in line:
            record = json.loads(line[line.index("{") : line.rindex("}") + 1])
            found[record["message"]] = record
    process.stdin.write("end\n")
    process.stdin.close()
    text += process.stdout.read()
    assert process.wait() == 0
    assert wanted <= found.keys(), text
    assert {"of": "shots", "done": 1, "total": 2}.items() <= found["progress"].items()
    shard = found["shard written"]
    assert (shard["shard"], shard["job"], shard["levelname"]) == ("s1", "shots", "INFO")
    assert shard["name"] == "rayramid.pipelines.worker"
    assert {"job_id", "worker_id", "node_id", "task_id"} <= shard.keys()
    assert found["curation done"]["run"] == "r1"
    assert secret not in text


def test_records_get_the_fields_of_their_run_unless_they_have_their_own():
    record = logging.makeLogRecord({"msg": "saved", "step": 3})
    assert logs.Fields(run="/runs/a", rank=0, step=9).filter(record)
    assert (record.run, record.rank, record.step) == ("/runs/a", 0, 3)


def test_another_word_is_a_mistake(monkeypatch):
    monkeypatch.setenv(logs.VARIABLE, "yaml")
    with pytest.raises(UserError, match="choose json or text"):
        logs.are_json()
