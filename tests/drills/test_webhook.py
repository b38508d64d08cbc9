"""The receiver of notifications records what Alertmanager sends, and waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from drills.harness import webhook_receiver


def body(*alerts: tuple[str, str]) -> dict[str, object]:
    """A notification of alerts by name and status."""
    status = "firing" if any(state == "firing" for _, state in alerts) else "resolved"
    return {
        "status": status,
        "alerts": [{"status": state, "labels": {"alertname": name}, "annotations": {}} for name, state in alerts],
    }


def send(url: str, *alerts: tuple[str, str]) -> None:
    """Send it as Alertmanager does."""
    httpx.post(url, json=body(*alerts), trust_env=False).raise_for_status()


def test_notifications_are_recorded_in_order_with_their_path() -> None:
    """Every path takes notifications, and each says which alerts fire."""
    with webhook_receiver() as people:
        send(f"{people.url}/page", ("A", "firing"), ("B", "resolved"))
        send(f"{people.url}/ticket", ("B", "resolved"))
        first, second = people.notifications
    assert (first.path, first.status, second.path, second.status) == ("/page", "firing", "/ticket", "resolved")
    assert [alert["labels"]["alertname"] for alert in first.firing()] == ["A"]
    assert first.firing("B") == []
    assert abs(first.at - time.time()) < 10


def test_waiting_takes_what_came_and_what_comes() -> None:
    """A notification that arrived before the wait counts, and one that arrives during it ends the wait."""
    with webhook_receiver() as people:
        send(people.url, ("Early", "firing"))
        assert people.wait_for(lambda one: one.firing("Early"), 0).firing("Early")
        late = threading.Timer(0.2, send, (people.url, ("Late", "firing")))
        late.start()
        started = time.monotonic()
        assert people.wait_for(lambda one: one.firing("Late"), 10).firing("Late")
        assert time.monotonic() - started < 5
        late.join()


def test_waiting_in_vain_says_what_came_instead() -> None:
    """The error names the alerts that did arrive, and where."""
    with webhook_receiver() as people:
        with pytest.raises(TimeoutError, match=r"within 0.1 s; what arrived: nothing"):
            people.wait_for(lambda _: True, 0.1)
        send(f"{people.url}/page", ("Other", "firing"))
        with pytest.raises(TimeoutError, match="what arrived: /page: Other firing"):
            people.wait_for(lambda one: one.firing("Mine"), 0.1)


def test_what_is_no_notification_is_refused() -> None:
    """Anything but Alertmanager's JSON is answered 400 and not recorded."""
    with webhook_receiver() as people:
        for content in (b"", b"{}", b"[]", b"\xff"):
            assert httpx.post(people.url, content=content, trust_env=False).status_code == 400
        assert people.notifications == []


def test_the_receiver_is_gone_afterwards(gone: Callable[..., bool]) -> None:
    """Nobody listens at its port, and no thread of it is left."""
    before = threading.active_count()
    with webhook_receiver() as people:
        assert not gone(None, people.url)
    assert gone(None, people.url)
    assert threading.active_count() == before
