"""The interface is what its document says: a fuzzer reads the document and looks for an answer that is not in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS

from drills.harness import Service, service
from service import openapi, problems

# What the fuzzer cannot know: the demo asks nobody for a token, and what fits the document may be refused all the same:
# a key that was used before, points that are not there, a cursor of one's own making, the number 1.0.
_LEFT_OUT = ("ignored_auth", "positive_data_acceptance")


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    """The service as `redemption-service run` starts it, with a database of its own."""
    limits = {"REDEMPTION_CLIENT_REQUESTS_PER_SECOND": "100000", "REDEMPTION_CLIENT_BURST": "100000"}
    with service(environment=limits) as one:
        yield one


@pytest.fixture(scope="module")
def document(running: Service) -> Any:  # noqa: ANN401 - any JSON
    """What it says of itself."""
    return httpx.get(f"{running.url}/openapi.json").json()


@pytest.fixture(scope="module")
def interface(running: Service) -> Any:  # noqa: ANN401 - schemathesis's own
    """The fuzzer's reading of it."""
    return schemathesis.openapi.from_url(f"{running.url}/openapi.json")


@pytest.mark.parametrize("name", openapi.OPERATIONS)
def test_every_answer_is_in_the_document(interface: Any, name: str) -> None:  # noqa: ANN401 - as above
    """Whatever is sent, right or wrong, status, media type and body are those that are declared, and never a 5xx."""
    method, _, path = name.partition(" ")

    @given(case=interface[path][method].as_strategy())
    @settings(max_examples=20, suppress_health_check=list(HealthCheck))
    def fuzz(case: Any) -> None:  # noqa: ANN401 - as above
        case.call_and_validate(excluded_checks=[CHECKS.get_one(check) for check in _LEFT_OUT])

    fuzz()


def test_every_operation_tells_all(document: Any) -> None:  # noqa: ANN401 - any JSON
    """Each has an id, a summary, a scope and its problems, and every problem that exists is told by some operation."""
    told: set[str] = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            assert operation["operationId"], name
            assert operation["summary"], name
            assert operation["description"], name
            [(_, scopes)] = operation["security"][0].items()
            assert scopes, name
            for status, answer in operation["responses"].items():
                assert answer["description"], name
                if int(status) >= 400:
                    assert list(answer["content"]) == [problems.MEDIA_TYPE], name
                    told |= {code.strip("` ") for code in answer["description"].split(",")}
    never = {problems.NOT_FOUND.code, problems.METHOD_NOT_ALLOWED.code, problems.HEAD_TIMEOUT.code}  # of no operation
    assert told == {kind.code for kind in problems.ALL} - never


def test_every_reference_leads_somewhere(document: Any) -> None:  # noqa: ANN401 - any JSON
    """No schema is named that is not there."""

    def references(node: Any) -> Iterator[str]:  # noqa: ANN401 - as above
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known
    assert set(document["paths"]) == {name.partition(" ")[2] for name in openapi.OPERATIONS}
