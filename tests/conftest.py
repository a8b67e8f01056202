"""What every test folder shares: databases, the local chain, hypothesis profiles."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

from tests.fixtures_database import *  # noqa: F403 - fixtures are found by their names here

if find_spec("tests.fixtures_devnet") is not None:
    from tests.fixtures_devnet import *  # noqa: F403

# A deadline per example would measure the machine; a hung test ends by pytest-timeout.
settings.register_profile(
    "dev", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("dev"), max_examples=1000, print_blob=True)
settings.load_profile("dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres-url",
        default="",
        help="superuser URL of a running server to test on, instead of a throw-away cluster",
    )
