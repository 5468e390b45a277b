"""Grafana's classic dashboard model, as its documentation describes it, of what our dashboard uses.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

from typing import Any, Final


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


_TEXT: Final = {"type": "string", "minLength": 1}
_NUMBER: Final = {"type": "integer", "minimum": 0}
_FLAG: Final = {"type": "boolean"}
_SOURCE: Final = _object(("type", "uid"), type=_TEXT, uid=_TEXT)
_PLACE: Final = _object(
    ("h", "w", "x", "y"),
    h={"type": "integer", "minimum": 1},
    w={"type": "integer", "minimum": 1, "maximum": 24},
    x={"type": "integer", "minimum": 0, "maximum": 23},
    y=_NUMBER,
)
_TARGET: Final = _object(
    ("refId", "expr"),
    refId={"type": "string", "pattern": "^[A-Z]$"},
    datasource=_SOURCE,
    expr=_TEXT,
    legendFormat=_TEXT,
)
_ROW: Final = _object(
    ("id", "type", "title", "gridPos", "collapsed", "panels"),
    id=_NUMBER,
    type={"const": "row"},
    title=_TEXT,
    gridPos=_PLACE,
    collapsed=_FLAG,
    panels={"type": "array", "maxItems": 0},
)
_PANEL: Final = _object(
    ("id", "type", "title", "gridPos", "datasource", "targets", "fieldConfig"),
    id=_NUMBER,
    type={"enum": ["timeseries", "stat", "bargauge"]},
    title=_TEXT,
    description=_TEXT,
    gridPos=_PLACE,
    datasource=_SOURCE,
    targets={"type": "array", "minItems": 1, "items": _TARGET},
    options={"type": "object"},
    fieldConfig=_object(
        ("defaults", "overrides"),
        defaults=_object(("unit",), unit=_TEXT, min={"type": "number"}),
        overrides={"type": "array"},
    ),
)
_VARIABLE: Final = _object(
    ("name", "type"),
    name={"type": "string", "pattern": "^[a-z]+$"},
    label=_TEXT,
    type={"enum": ["datasource", "query"]},
    datasource=_SOURCE,
    query={"type": ["string", "object"]},
    definition=_TEXT,
    refresh={"enum": [0, 1, 2]},
    sort={"type": "integer"},
    multi=_FLAG,
    includeAll=_FLAG,
    allValue=_TEXT,
    current={"type": "object"},
    options={"type": "array"},
    hide={"enum": [0, 1, 2]},
)
DASHBOARD: Final = _object(
    ("uid", "title", "schemaVersion", "panels", "time", "templating", "annotations"),
    uid={"type": "string", "pattern": "^[A-Za-z0-9_-]{1,40}$"},
    title=_TEXT,
    description=_TEXT,
    tags={"type": "array", "items": _TEXT},
    schemaVersion={"type": "integer", "minimum": 36, "maximum": 42},
    version=_NUMBER,
    editable=_FLAG,
    graphTooltip={"enum": [0, 1, 2]},
    timezone={"enum": ["browser", "utc", ""]},
    refresh={"type": "string", "pattern": "^[0-9]+[smh]$"},
    time=_object(("from", "to"), **{"from": _TEXT, "to": _TEXT}),
    timepicker={"type": "object"},
    annotations=_object(("list",), list={"type": "array"}),
    links={"type": "array"},
    templating=_object(("list",), list={"type": "array", "items": _VARIABLE}),
    panels={"type": "array", "items": {"oneOf": [_ROW, _PANEL]}},
)
