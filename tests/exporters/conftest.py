"""Nobody's own AWS configuration plays a part."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from drills.harness import moto_server


@pytest.fixture(scope="session", autouse=True)
def _aws_environment() -> Iterator[None]:
    """Made-up credentials; moto looks at no signature."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDMADEUP")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The URL of an AWS as moto plays it."""
    with moto_server() as server:
        yield server.url
