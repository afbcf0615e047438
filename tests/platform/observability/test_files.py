"""What Grafana and Prometheus are given speaks of metrics that exist, and is what the repository holds."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rayramid.platform.cli import app
from rayramid.platform.observability.catalogue import CATALOGUE, table
from rayramid.platform.observability.files import files

ROOT = Path(__file__).parents[3]
METRICS = [metric for metrics in CATALOGUE.values() for metric in metrics]
BY_SAMPLE = {sample: metric for metric in METRICS for sample in metric.samples}
# Of histograms' buckets, and of everything that Ray exports.
ALWAYS = {"le", "WorkerId"}


def expressions():
    """Every expression, by where it stands."""
    for name, text in files().items():
        if name.endswith(".json"):
            for panel in json.loads(text)["panels"]:
                for target in panel["targets"]:
                    yield f"{name}: {panel['title']}", target["expr"], target["legendFormat"]
        else:
            for group in yaml.safe_load(text)["groups"]:
                for rule in group["rules"]:
                    yield rule["alert"], rule["expr"], rule["annotations"]["summary"]


def test_names_tell_system_and_unit_and_none_is_there_twice():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.name == f"rayramid_{metric.system}_{metric.what}_{metric.unit}"
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", metric.name)
        # Prometheus' own label: a scrape would rename ours.
        assert "job" not in metric.labels
        assert bool(metric.boundaries) == (metric.kind == "histogram")
    assert "ray_rayramid_data_done_shards_total" in BY_SAMPLE
    assert "ray_rayramid_serve_step_seconds_bucket" in BY_SAMPLE


def test_every_expression_is_about_metrics_and_labels_of_the_catalogue():
    for where, expression, text in expressions():
        used = set(re.findall(r"\bray_\w+", expression))
        assert used, where
        assert used <= BY_SAMPLE.keys(), where
        known = ALWAYS.union(*(BY_SAMPLE[sample].labels for sample in used))
        grouped = {label for labels in re.findall(r"by \((.*?)\)", expression) for label in labels.split(", ")}
        selected = set(re.findall(r"[{,](\w+)=", expression))
        shown = set(re.findall(r"{{ ?(?:\$labels\.)?(\w+) ?}}", text))
        assert grouped | selected | shown <= known, where


def test_every_metric_is_on_a_dashboard():
    shown = " ".join(text for name, text in files().items() if name.endswith(".json"))
    assert [metric.name for metric in METRICS if metric.exported not in shown] == []


def test_alerts_have_names_of_their_own_and_say_what_to_do():
    rules = [rule for group in yaml.safe_load(files()["alerts.yaml"])["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["annotations"]["description"].endswith(".")
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_panels_do_not_overlap_and_have_numbers_of_their_own():
    for name, text in files().items():
        if name.endswith(".json"):
            panels = json.loads(text)["panels"]
            assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
            assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_command_writes_what_the_repository_holds(tmp_path):
    done = CliRunner().invoke(app, ["dashboards", str(tmp_path)])
    assert done.exit_code == 0, done.output
    committed = ROOT / "infra" / "observability"
    for name, text in files().items():
        assert (tmp_path / name).read_text() == text
        assert (committed / name).read_text() == text, f"run: rayramid dashboards {committed.relative_to(ROOT)}"


def test_the_page_has_the_table_that_the_command_prints():
    done = CliRunner().invoke(app, ["dashboards", "--metrics"])
    assert done.output.strip() == table()
    page = (ROOT / "docs" / "observability.md").read_text()
    assert table() in page, "copy what 'rayramid dashboards --metrics' prints"


@pytest.mark.parametrize("arguments", [[], ["/dev/null/folder"]])
def test_a_folder_that_is_none_is_a_users_mistake(arguments):
    done = CliRunner().invoke(app, ["dashboards", *arguments])
    assert "UserError" in type(done.exception).__name__
