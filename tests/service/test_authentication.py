"""Who may call what: every operation asks for a token that is good for it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from drills.harness import Issuer
from service.openapi import OPERATIONS
from service.security import Scope
from tests.service.conftest import Database, Serve, Service

pytestmark = pytest.mark.anyio


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """Makes tokens."""
    return Issuer(tmp_path)


@pytest.fixture
async def guarded(serve: Serve, issuer: Issuer) -> AsyncIterator[Service]:
    """The service, with callers who must say who they are."""
    async with serve(jwks_file=issuer.jwks_file, jwt_issuer=issuer.url, jwt_audience=issuer.audience) as running:
        yield running


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def _call(service: Service, name: str, headers: dict[str, str]) -> httpx.Response:
    method, _, path = name.partition(" ")
    path = path.replace("{redemption_id}", "0" * 32).replace("{reference}", "0" * 32).replace("{account_id}", "guest")
    return await service.client.request(method, path, headers=headers, content=b"" if method == "GET" else b"{}")


@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_operation_asks_for_a_token(guarded: Service, issuer: Issuer, name: str) -> None:
    """Without a token, with a wrong one or with two: 401 and how to do better; nothing of the request is looked at."""
    none = await _call(guarded, name, {})
    assert (none.status_code, none.json()["code"], none.headers["WWW-Authenticate"]) == (
        401,
        "unauthenticated",
        "Bearer",
    )
    expired = await _call(guarded, name, _bearer(issuer.token("partner", lifetime_seconds=-3600)))
    assert (expired.status_code, expired.json()["retryable"]) == (401, False)
    assert 'error="invalid_token"' in expired.headers["WWW-Authenticate"]
    method, _, path = name.partition(" ")
    token = f"Bearer {issuer.token('partner')}"
    both = [("Authorization", token), ("Authorization", token)]
    assert (await guarded.client.request(method, path, headers=both)).status_code == 401


@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_operation_needs_its_scope(guarded: Service, issuer: Issuer, name: str) -> None:
    """A token with all scopes but the one that the document names is refused; with that one alone it goes on."""
    [scope] = OPERATIONS[name]["openapi_extra"]["security"][0]["bearer"]
    others = [one for one in Scope if one != scope]
    refused = await _call(guarded, name, _bearer(issuer.token("partner", others)))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert f'scope="{scope}"' in refused.headers["WWW-Authenticate"]
    allowed = await _call(guarded, name, _bearer(issuer.token("partner", [Scope(scope)])))
    assert allowed.status_code not in (401, 403)


async def test_an_unknown_key_is_worth_a_retry(guarded: Service, issuer: Issuer) -> None:
    """A token of a key that was published a moment ago is refused retryably until the keys are read again."""
    issuer.rotate()
    answer = await _call(guarded, "GET /v1/redemptions", _bearer(issuer.token("partner")))
    assert (answer.status_code, answer.json()["code"]) == (401, "signing-key-unknown")
    assert (answer.json()["retryable"], answer.headers["Retry-After"]) == (True, "1")


async def test_a_member_spends_their_own_points_only(guarded: Service, issuer: Issuer, database: Database) -> None:
    """A token with an account is good for that account: others cannot be spent, seen, or told from unknown ones."""
    own, other = await database.account(100), await database.account(100)
    member, partner = _bearer(issuer.token("app", account_id=own)), _bearer(issuer.token("app"))
    assert (await guarded.redeem(own, 10, **member)).status_code == 201
    assert (await guarded.redeem(other, 10, **member)).status_code == 403
    for path in (f"/v1/accounts/{other}/balance", f"/v1/accounts/{other}/entries"):
        assert (await guarded.client.get(path, headers=member)).json()["code"] == "account-not-found"
    made = await guarded.redeem(other, 10, **partner)
    location = made.headers["Location"]
    assert (await guarded.client.get(location, headers=member)).status_code == 404
    assert (await guarded.client.get(f"{location}/status", headers=member)).status_code == 404
    key = {"Idempotency-Key": secrets.token_hex(16)}
    assert (await guarded.client.post(f"{location}/void", headers=member | key)).status_code == 404
    for what in ("capture", "refunds"):  # not even of their own: a guest does not refund themselves
        own_location = (await guarded.redeem(own, 10, **member)).headers["Location"]
        key = {"Idempotency-Key": secrets.token_hex(16)}
        assert (await guarded.client.post(f"{own_location}/{what}", headers=member | key)).status_code == 403
    assert (await guarded.client.get("/v1/redemptions", headers=member)).status_code == 403
    assert (await guarded.client.post("/v1/accruals:batch", headers=member, json={})).status_code == 403
    assert (await guarded.client.get(f"/v1/accounts/{other}/balance", headers=partner)).json()["posted"] == 90


async def test_a_client_sees_its_own_redemptions_only(guarded: Service, issuer: Issuer, database: Database) -> None:
    """Another client's redemption is not found, whatever is asked of it; and the same key is another one's own."""
    account, key = await database.account(100), secrets.token_hex(16)
    one, other = _bearer(issuer.token("one")), _bearer(issuer.token("other"))
    made = await guarded.redeem(account, 10, key, **one)
    location = made.headers["Location"]
    assert (await guarded.client.get(location, headers=one)).status_code == 200
    assert (await guarded.client.get(location, headers=other)).status_code == 404
    fresh = {"Idempotency-Key": secrets.token_hex(16)}
    assert (await guarded.client.post(f"{location}/refunds", headers=other | fresh)).status_code == 404
    assert (await guarded.client.get("/v1/redemptions", headers=other)).json()["redemptions"] == []
    again = await guarded.redeem(account, 10, key, **other)
    assert again.json()["redemption_id"] != made.json()["redemption_id"]


async def test_a_client_beyond_its_rate_is_limited(serve: Serve, issuer: Issuer, database: Database) -> None:
    """429 tells the quota and when to come back, counts as limited, and touches no other client."""
    account = await database.account(100)
    async with serve(
        jwks_file=issuer.jwks_file,
        jwt_issuer=issuer.url,
        jwt_audience=issuer.audience,
        client_requests_per_second=0.1,
        client_burst=2,
    ) as service:
        busy, calm = _bearer(issuer.token("busy")), _bearer(issuer.token("calm"))
        answers = [await service.redeem(account, 1, **busy) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 429]
        limited = answers[-1]
        assert (limited.json()["code"], limited.json()["retryable"]) == ("rate-limited", True)
        assert limited.headers["RateLimit-Policy"].startswith('"client";q=2;')
        assert limited.headers["RateLimit"].startswith('"client";r=0;')
        assert 1 <= int(limited.headers["Retry-After"]) <= 10
        assert (await service.redeem(account, 1, **calm)).status_code == 201
        assert await service.sample("redemption_requests_total", route="POST /v1/redemptions", outcome="limited") == 1


async def test_members_do_not_share_a_quota(serve: Serve, issuer: Issuer, database: Database) -> None:
    """One guest's phone that asks too often turns away neither another guest of the same app nor the app itself."""
    one, two = await database.account(100), await database.account(100)
    known = {"jwks_file": issuer.jwks_file, "jwt_issuer": issuer.url, "jwt_audience": issuer.audience}
    async with serve(**known, client_requests_per_second=0.1, client_burst=2) as service:
        eager, calm = (_bearer(issuer.token("app", account_id=account)) for account in (one, two))
        assert [(await service.redeem(one, 1, **eager)).status_code for _ in range(3)] == [201, 201, 429]
        assert (await service.redeem(two, 1, **calm)).status_code == 201
        assert (await service.redeem(two, 1, **_bearer(issuer.token("app")))).status_code == 201


async def test_each_accrual_of_a_batch_counts(serve: Serve, issuer: Issuer) -> None:
    """A batch is no way around the quota: it costs as much as its accruals one by one."""
    known = {"jwks_file": issuer.jwks_file, "jwt_issuer": issuer.url, "jwt_audience": issuer.audience}
    accruals = [{"reference": f"stay-{number}", "account_id": "guest-quota", "points": 1} for number in range(6)]
    async with serve(**known, client_requests_per_second=0.1, client_burst=10) as service:
        bank = _bearer(issuer.token("bank"))
        answers = [
            await service.client.post("/v1/accruals:batch", json={"accruals": accruals}, headers=bank) for _ in "ab"
        ]
        assert [answer.status_code for answer in answers] == [200, 429]


async def test_no_token_is_told(guarded: Service, issuer: Issuer, database: Database) -> None:
    """Neither log nor trace nor answer holds a token or the key of a request; the client's name is there."""
    token, key = issuer.token("partner"), secrets.token_hex(16)
    answer = await guarded.redeem(await database.account(10), 1, key, **_bearer(token))
    bad = await guarded.redeem("guest", 1, key, **_bearer(token[:-3] + "abc"))
    told = answer.text + bad.text + guarded.log.getvalue().decode() + "".join(s.to_json() for s in guarded.finished())
    assert not [secret for secret in (token, token.split(".")[2], key) if secret in told]
    assert guarded.lines()[0]["client"] == "partner"
