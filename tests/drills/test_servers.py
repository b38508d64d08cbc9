"""Each real server starts, answers, does what drills ask of it, and is gone afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from drills.harness import (
    HarnessError,
    alertmanager,
    jaeger,
    ledger_database,
    process,
    prometheus,
    service,
    toxiproxy,
    wait_until,
    webhook_receiver,
)

pytestmark = pytest.mark.e2e

Gone = Callable[..., bool]


def rules_file(folder: Path, expr: str = "vector(1)") -> Path:
    """A rule file with one recording and one alert."""
    rules = [
        {"record": "one:recorded", "expr": expr},
        {"alert": "AlwaysThere", "expr": "one:recorded > 0", "labels": {"severity": "page"}},
    ]
    file = folder / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "one", "interval": "200ms", "rules": rules}]}))
    return file


def to(url: str) -> str:
    """An Alertmanager configuration that sends everything to a webhook at once."""
    route = {"receiver": "all", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
    return json.dumps({"route": route, "receivers": [{"name": "all", "webhook_configs": [{"url": url}]}]})


def test_an_alert_goes_from_a_rule_to_a_webhook(tmp_path: Path, gone: Gone) -> None:
    """Prometheus runs our rule file, Alertmanager gets the alert, the receiver records it; then all are gone."""
    with webhook_receiver() as people, alertmanager(to(f"{people.url}/page")) as pager:
        with prometheus(rules=[rules_file(tmp_path)], alertmanager_url=pager.url) as metrics:
            page = people.wait_for(lambda one: one.firing("AlwaysThere"), 30)
            assert page.path == "/page"
            assert page.status == "firing"
            assert [alert.name for alert in metrics.alerts()] == ["AlwaysThere"]
            assert [alert["labels"]["severity"] for alert in pager.alerts()] == ["page"]
            assert not gone(metrics.process)
        assert gone(metrics.process)
    assert gone(pager.process, people.url)


def test_prometheus_answers_queries(tmp_path: Path) -> None:
    """Vectors, scalars, one value, ranges and rules come back as values; a wrong query is told in its own words."""
    with prometheus(rules=[rules_file(tmp_path)]) as metrics:
        wait_until("the rule ran", lambda: bool(metrics.query("one:recorded")), 10)
        [sample] = metrics.query("one:recorded")
        assert (sample.labels, sample.value) == ({"__name__": "one:recorded"}, 1.0)
        assert abs(sample.at - time.time()) < 5
        assert metrics.value("1 + 1") == 2
        assert metrics.value("nothing") is None
        assert metrics.query("one:recorded", at=time.time() - 3600) == []
        [series] = metrics.query_range("vector(7)", 1000, 1002, timedelta(seconds=1))
        assert series.points == ((1000, 7), (1001, 7), (1002, 7))
        assert [rule["health"] for rule in metrics.rules()] == ["ok", "ok"]
        with pytest.raises(HarnessError, match=r"400.*parse error"):
            metrics.query("sum(")
        with pytest.raises(HarnessError, match="2 values"):
            metrics.value('label_replace(vector(1), "a", "b", "", "") or vector(2)')


def test_prometheus_reads_changed_rules(tmp_path: Path) -> None:
    """After `reload` the new rules run; wrong ones are refused with Prometheus's words."""
    file = rules_file(tmp_path)
    with prometheus(rules=[file]) as metrics:
        rules_file(tmp_path, "vector(5)")
        metrics.reload()
        wait_until("the new rule ran", lambda: metrics.value("one:recorded") == 5, 10)
        file.write_text("groups: [{name: one, rules: [{record: x, expr: 'sum('}]}]")
        with pytest.raises(HarnessError, match=r"(?s)refused to reload: .*rules.yaml.* parse error"):
            metrics.reload()


def test_rules_start_once_the_targets_were_scraped(tmp_path: Path) -> None:
    """An absence alert without patience, which would fire before the first scrape, does not."""
    rule = {"alert": "Absent", "expr": "absent(up)"}
    absent = tmp_path / "absent.yaml"
    absent.write_text(json.dumps({"groups": [{"name": "a", "interval": "100ms", "rules": [rule]}]}))
    with prometheus() as other, prometheus(rules=[absent], targets={"other": [urlsplit(other.url).netloc]}) as metrics:
        assert metrics.value('up{job="other"}') == 1
        wait_until("the rules ran", lambda: bool(metrics.rules()[0]["lastEvaluation"] > "0002"), 10)
        assert metrics.query('count_over_time(ALERTS{alertname="Absent"}[1m])') == []


def test_prometheus_reads_data_that_was_there(tmp_path: Path) -> None:
    """What one run stored in a given folder, the next one reads, and the folder stays."""
    with prometheus(rules=[rules_file(tmp_path)], data=tmp_path / "data") as metrics:
        wait_until("the rule ran", lambda: bool(metrics.query("one:recorded")), 10)
    with prometheus(data=tmp_path / "data") as metrics:
        assert metrics.value("last_over_time(one:recorded[1m])") == 1


def test_a_rule_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """Prometheus would start without it in silence; we do not."""
    with (
        pytest.raises(HarnessError, match=r"do not exist: .*nowhere\.yaml"),
        prometheus(rules=[tmp_path / "nowhere.yaml"]),
    ):
        pytest.fail("it started")


def test_a_wrong_configuration_is_told_in_the_servers_words() -> None:
    """The error holds the end of the log, in which the server says what is wrong."""
    with pytest.raises(HarnessError, match=r"(?s)prometheus ended .*bogus"), prometheus(config={"bogus": 1}):
        pytest.fail("it started")
    with pytest.raises(HarnessError, match=r"(?s)alertmanager ended .*bogus"), alertmanager('{"bogus": 1}'):
        pytest.fail("it started")


@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("prometheus", prometheus),
        ("alertmanager", lambda: alertmanager(to("http://127.0.0.1:1"))),
        ("toxiproxy-server", lambda: toxiproxy("127.0.0.1:1")),
        ("jaeger", jaeger),
    ],
)
def test_a_missing_program_is_named(
    name: str, server: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each server says which program is missing and how it is built."""
    monkeypatch.setattr(process, "TOOLS", tmp_path)
    with pytest.raises(HarnessError, match=f"{name} is missing: .*`make tools`"):
        server().__enter__()  # type: ignore[attr-defined]


def test_toxiproxy_spoils_and_heals_a_path(gone: Gone) -> None:
    """Latency slows answers, a disabled path refuses, an enabled one works at the same address."""
    with prometheus() as upstream, toxiproxy(urlsplit(upstream.url).netloc) as path:
        url = path.through(f"{upstream.url}/-/ready")
        assert urlsplit(url).netloc == path.listen

        def seconds() -> float:
            started = time.monotonic()
            assert httpx.get(url, trust_env=False).status_code == 200
            return time.monotonic() - started

        seconds()
        path.add_toxic("latency", latency=1000, jitter=0)
        assert seconds() >= 1
        path.remove_all()
        assert seconds() < 1
        path.disable()
        with pytest.raises(httpx.ConnectError):
            seconds()
        path.enable()
        seconds()
        with pytest.raises(HarnessError, match=r"400.*invalid toxic type"):
            path.add_toxic("bogus")
    assert gone(path.process, path.listen)


def test_a_url_through_the_path_keeps_its_credentials() -> None:
    """Only host and port of a URL change."""
    with toxiproxy("127.0.0.1:5432") as path:
        url = path.through("postgresql://me:s%40cret@127.0.0.1:5432/ledger?a=b")
        assert url == f"postgresql://me:s%40cret@{path.listen}/ledger?a=b"


def test_jaeger_takes_a_trace_and_gives_it_back(gone: Gone) -> None:
    """A span sent by OTLP over HTTP is found by its service and by its trace id; an unknown one is None."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    span = {"traceId": trace_id, "spanId": "b7ad6b7169203331", "name": "redeem", "kind": 2}
    span |= {"startTimeUnixNano": str(time.time_ns() - 1_000_000), "endTimeUnixNano": str(time.time_ns())}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "toy"}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    with jaeger() as traces:
        assert traces.trace(trace_id) is None
        sent = httpx.post(f"{traces.otlp_url}/v1/traces", json=body, trust_env=False)
        assert sent.status_code == 200
        wait_until("the trace arrived", lambda: traces.trace(trace_id) is not None, 10)
        assert traces.services() == ["toy"]
        assert [trace["traceID"] for trace in traces.traces("toy")] == [trace_id]
    assert gone(traces.process)


def test_the_service_runs_on_a_database_behind_a_path(gone: Gone) -> None:
    """Points granted to an account are seen through the service; a cut path is its 503; then both are gone."""
    with ledger_database() as database, toxiproxy(database.address) as path:
        database.accrue(["guest-1", "guest-2"], 500)
        with service(path.through(database.url), {"REDEMPTION_POOL_MAX": "2"}) as shop:
            balance = f"{shop.url}/v1/accounts/guest-2/balance"
            assert httpx.get(balance, trust_env=False).status_code == 401
            assert httpx.get(balance, headers=shop.headers, trust_env=False).json()["posted"] == 500
            path.disable()
            assert httpx.get(balance, headers=shop.headers, trust_env=False).status_code == 503
            path.enable()
    assert gone(shop.process, database.address)


def test_the_service_starts_a_database_of_its_own(gone: Gone) -> None:
    """Without a database URL the service answers all the same."""
    with service() as shop:
        assert httpx.get(f"http://{shop.address}/readyz", trust_env=False).status_code == 200
    assert gone(shop.process)
