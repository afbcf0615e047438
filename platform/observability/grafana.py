"""Dashboards as Grafana imports them."""

from typing import Any

from rayramid.platform.observability.dashboards import Dashboard, Panel

# Of Grafana 10 and newer.
_SCHEMA = 39
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Grafana's grid has 24 columns.
_WIDTH, _HEIGHT = 12, 8


def grafana(dashboard: Dashboard) -> dict[str, Any]:
    """The JSON model; the data source is chosen where it is shown."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["rayramid"],
        "schemaVersion": _SCHEMA,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables(dashboard)},
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    variables: list[dict[str, Any]] = [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
    if dashboard.of is not None:
        variables.append(
            {
                "name": "run",
                "type": "query",
                "datasource": _SOURCE,
                "query": f"label_values({dashboard.of.exported}, run)",
                # When the time range changes: runs come and go.
                "refresh": 2,
                "multi": True,
                "includeAll": True,
                "current": {"text": ["All"], "value": ["$__all"]},
            }
        )
    return variables


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": number % 2 * _WIDTH, "y": number // 2 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for index, (legend, expression) in enumerate(panel.curves.items())
        ],
    }
