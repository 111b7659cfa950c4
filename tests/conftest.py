"""Fixtures that several rooms' tests share; what they do stands in the modules they come from."""

from tests.bus_fixture import bus as bus
from tests.bus_fixture import nats_server as nats_server
from tests.bus_fixture import plain_logs as plain_logs
from tests.bus_fixture import settings as settings
from tests.integration.faults.table import pytest_terminal_summary as pytest_terminal_summary
from tests.loopback_hub.fixture import hub as hub
from tests.secrecy import pytest_runtest_makereport as pytest_runtest_makereport
