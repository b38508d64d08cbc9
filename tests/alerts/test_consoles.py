"""Addresses of other people's pages, byte for byte as those pages write them."""

from __future__ import annotations

import json
from datetime import timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from alerts import consoles
from alerts.jsurl import Value, encode

AWS = "https://console.aws.amazon.com/cloudwatch/home"
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "~null"),
        (True, "~true"),
        (-3600, "~-3600"),
        ("a-b_c.D", "~'a-b_c.D"),
        ("a b$ä€", "~'a*20b!*e4**20ac"),
        ("😀", "~'**d83d**de00"),
        ([], "~(~)"),
        ([1, "a"], "~(~1~'a)"),
        ({"a": 1, "b": {"c": [True]}}, "~(a~1~b~(c~(~true)))"),
        ({}, "~()"),
    ],
)
def test_jsurl_is_as_its_rules_say(value: Value, text: str) -> None:
    """Kinds, nesting, and each sort of escape."""
    assert encode(value) == text


def test_traces_open_with_the_filter() -> None:
    """The form of the console's own addresses: an expression, and how far back in milliseconds."""
    expression = 'service("api") AND fault = true'
    assert consoles.xray_traces(AWS, "eu-central-1", expression, timedelta(hours=6)) == (
        f"{AWS}?region=eu-central-1#xray:traces/query?~(query~(expression~'service*28*22api*22*29*20AND*20fault*20*3d*20"
        "true)~context~(timeRange~(delta~21600000)))"
    )


def test_logs_open_with_the_query() -> None:
    """Relative times count back in seconds; every log group is named."""
    query = "fields @timestamp, @message\n| limit 20"
    assert consoles.logs_insights(AWS, "eu-central-1", query, ["/eks/redemption"], HOUR) == (
        f"{AWS}?region=eu-central-1#logsV2:logs-insights$3FqueryDetail$3D~(end~0~start~-3600~timeType~'RELATIVE~tz~'UTC"
        "~unit~'seconds~editorString~'fields*20*40timestamp*2c*20*40message*0a*7c*20limit*2020"
        "~source~(~'*2feks*2fredemption)~lang~'CWLI)"
    )


def test_an_alarm_opens_by_its_name() -> None:
    """A name may hold what an address may not."""
    assert consoles.cloudwatch_alarm(AWS, "eu-central-1", "slo/a b") == (
        f"{AWS}?region=eu-central-1#alarmsV2:alarm/slo%2Fa%20b"
    )


def test_explore_opens_with_the_query() -> None:
    """Its state is JSON in one parameter."""
    url = consoles.explore("https://grafana.example.com", "prometheus", 'rate(a{b="c"}[5m])', HOUR)
    asked = parse_qs(urlsplit(url).query, strict_parsing=True)
    assert (asked["schemaVersion"], asked["orgId"]) == (["1"], ["1"])
    assert json.loads(asked["panes"][0]) == {
        "a": {
            "datasource": "prometheus",
            "queries": [
                {
                    "refId": "A",
                    "expr": 'rate(a{b="c"}[5m])',
                    "datasource": {"type": "prometheus", "uid": "prometheus"},
                }
            ],
            "range": {"from": "now-3600s", "to": "now"},
        }
    }
    assert " " not in url
    assert '"' not in url


def test_a_silence_is_filled_in() -> None:
    """Alertmanager reads matchers as it writes them, quotes in values too."""
    url = consoles.silence("https://alerts.example.com", {"alertname": "A", "slo": 'x"y'})
    head, _, text = url.partition("?filter=")
    assert head == "https://alerts.example.com/#/silences/new"
    assert unquote(text) == '{alertname="A",slo="x\\"y"}'
