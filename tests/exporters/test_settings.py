"""The file is read as a whole, and every fault of it is told at once."""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from exporters.calls import Reason
from exporters.settings import SOURCES, Account, Settings, load
from slo.errors import SloError
from slo.metrics.exporters import EXPORTER_SOURCES, EXPORTERS_API_ERRORS

WHOLE = """
listen = "[::1]:9751"
regions = ["eu-central-1", "us-gov-west-1"]
sources = ["rds", "redis", "eks"]
period_seconds = 120
delay_seconds = 180
max_staleness_seconds = 900
discovery_seconds = 300

[[accounts]]
id = "123456789012"

[[accounts]]
id = "210987654321"
role_arn = "arn:aws:iam::210987654321:role/ops/exporters"
external_id = "loyalty"

[tags]
team = ["loyalty", "payments"]
monitored = []

[requests]
attempts_max = 2
retries_max = 0
timeout_seconds = 3

[prices]
get_metric_data_usd = 0.008
source = "our contract"
read_on = 2026-11-01

[kubernetes]
cluster = "main"
url = "https://10.0.0.1:6443"
token_file = "{folder}/secret"
ca_file = "{folder}/secret"

[redis]
cluster = "redemption"
seeds = ["redis.example.com:6379", "[::1]:6380"]
user = "exporter"
password_file = "{folder}/secret"
"""


def written(folder: Path, text: str) -> Path:
    """A file with this text, beside a secret."""
    (folder / "secret").write_text("made-up")
    file = folder / "exporters.toml"
    file.write_text(text.replace("{folder}", str(folder)))
    return file


def faults(folder: Path, text: str) -> list[str]:
    """What is wrong with it."""
    with pytest.raises(SloError) as caught:
        load(written(folder, text))
    return list(caught.value.problems)


def test_every_key_is_read(tmp_path: Path) -> None:
    """A file with all there is."""
    settings = load(written(tmp_path, WHOLE))

    assert settings.listen == ("::1", 9751)
    assert settings.regions == ("eu-central-1", "us-gov-west-1")
    assert settings.accounts == (
        Account(id="123456789012"),
        Account(id="210987654321", role_arn="arn:aws:iam::210987654321:role/ops/exporters", external_id="loyalty"),
    )
    assert settings.tags == {"team": ("loyalty", "payments"), "monitored": ()}
    assert (settings.prices.get_metric_data_usd, settings.prices.read_on) == (Decimal("0.008"), date(2026, 11, 1))
    assert settings.redis
    assert settings.redis.seeds == (("redis.example.com", 6379), ("::1", 6380))
    assert settings.redis.tls, "unless it is switched off"
    assert settings.kubernetes
    assert settings.kubernetes.url == "https://10.0.0.1:6443"
    assert "loyalty" not in repr(settings.accounts), "an external id is half a secret"


def test_little_is_needed(tmp_path: Path) -> None:
    """Regions, accounts and sources; the rest has a default, the delay of two minutes among it."""
    settings = load(
        written(tmp_path, 'regions = ["eu-central-1"]\nsources = ["rds"]\n[[accounts]]\nid = "123456789012"\n')
    )

    assert (settings.period_seconds, settings.delay_seconds, settings.max_staleness_seconds) == (60, 120, 600)
    assert settings.prices.source.startswith("https://aws.amazon.com/cloudwatch/pricing/")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """Each names its key, what is allowed, and what is there."""
    found = faults(
        tmp_path,
        """
        listen = "9750"
        regions = ["Frankfurt"]
        sources = ["rds", "dynamodb"]
        period_seconds = 90
        colour = "red"
        tags = { team = "loyalty" }
        [[accounts]]
        role_arn = "exporters"
        [requests]
        attempts_max = true
        endpoint_url = "ftp://example.com"
        [prices]
        get_metric_data_usd = -1
        read_on = "2026-11-01"
        [kubernetes]
        url = "http://10.0.0.1"
        [redis]
        cluster = "redemption"
        seeds = ["redis.example.com"]
        tls = "yes"
        ca_file = "/nowhere/ca.pem"
        """,
    )

    tags = "at most 50 tags, each with a list of at most 20 values"
    assert found == [
        f"colour: unknown; allowed are {', '.join(one.name for one in fields(Settings))}",
        "listen: must be a host and a port, 'redis.example.com:6379' say, not '9750'",
        "regions: must be regions like 'eu-central-1', not ['Frankfurt']",
        f"sources: must be a list of some of {', '.join(SOURCES)}, not ['rds', 'dynamodb']",
        "period_seconds: must be a multiple of 60 from 60 to 3600, not 90",
        "accounts[1].id: missing",
        "accounts[1].role_arn: must be a role's ARN, 'arn:aws:iam::123456789012:role/exporters' say, not 'exporters'",
        f"tags: must be {tags}, team = ['loyalty'], not {{'team': 'loyalty'}}",
        "requests.attempts_max: must be a whole number from 1 to 10, not True",
        "requests.endpoint_url: must be a URL that begins with http:// or https://, not 'ftp://example.com'",
        "prices.get_metric_data_usd: must be US dollars, 0 or more, not -1",
        "prices.read_on: must be a date, 2026-11-22 say, without quotation marks, not '2026-11-01'",
        "kubernetes.cluster: missing",
        "kubernetes.url: must be a URL that begins with https://, not 'http://10.0.0.1'",
        "redis.seeds: must be a host and a port, 'redis.example.com:6379' say, not ['redis.example.com']",
        "redis.tls: must be true or false, not 'yes'",
        "redis.ca_file: must be the path of a file that is there, not '/nowhere/ca.pem'",
    ]


def test_values_must_agree(tmp_path: Path) -> None:
    """What is right alone and wrong together is told as well."""
    assert faults(tmp_path, "") == [
        "regions: missing; rds, elasticache, sqs, alb, route53, waf need at least one, ['eu-central-1'] say",
        "[[accounts]]: missing; rds, elasticache, sqs, alb, route53, waf need at least one, with its id",
        "[redis]: missing; the source 'redis' needs it; or leave it out of sources",
        "[kubernetes]: missing; the source 'eks' needs it; or leave it out of sources",
    ]
    text = """
        sources = ["eks"]
        delay_seconds = 300
        max_staleness_seconds = 360
        [kubernetes]
        cluster = "main"
        [[accounts]]
        id = "123456789012"
        role_arn = "arn:aws:iam::210987654321:role/exporters"
        [[accounts]]
        id = "123456789012"
        """
    found = faults(tmp_path, text)
    assert found.pop(2).startswith("max_staleness_seconds: must be at least 420 (delay_seconds and two periods; ")
    assert found == [
        "accounts[1].role_arn: is a role of account 210987654321, not of 123456789012",
        "accounts[2].id: 123456789012 is there already",
        "kubernetes.token_file: there is no file /var/run/secrets/kubernetes.io/serviceaccount/token",
        "kubernetes.ca_file: there is no file /var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("listen = ", "is not TOML: Invalid value (at end of document)"),
        ('redis = "here"', "redis: must be a table, [redis], not 'here'"),
        ('accounts = ["here"]', "accounts: must be tables, [[accounts]], not ['here']"),
        ('regions = ["eu-central-1", "eu-central-1"]', "regions: must name each only once"),
        ("[prices]\nget_metric_data_usd = inf", "prices.get_metric_data_usd: must be US dollars, 0 or more, not inf"),
        ("listen = 'localhost:70000'", "listen: must be a host and a port"),
    ],
)
def test_a_fault_of_form_is_a_line_like_any_other(tmp_path: Path, text: str, fault: str) -> None:
    """Never a traceback, whatever is in the file."""
    (found,) = faults(tmp_path, text)

    assert found.startswith(fault)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(SloError, match=r"config .*nowhere\.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml")


def test_the_sources_are_those_of_the_catalogue() -> None:
    """A source that can be switched on is one that `exporters_up` knows; so is every reason of an error."""
    assert set(SOURCES) == set(EXPORTER_SOURCES)
    assert set(Reason) == set(EXPORTERS_API_ERRORS.labels["reason"])
