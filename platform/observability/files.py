"""The files for Grafana and Prometheus."""

import json
from collections.abc import Mapping

import yaml

from rayramid.platform.observability.alerts import rules
from rayramid.platform.observability.dashboards import DASHBOARDS
from rayramid.platform.observability.grafana import grafana


def files() -> Mapping[str, str]:
    """Their texts by their names."""
    dashboards = {f"{each.uid}.json": json.dumps(grafana(each), indent=1) + "\n" for each in DASHBOARDS}
    return {**dashboards, "alerts.yaml": yaml.safe_dump(rules(), sort_keys=False, width=120)}
