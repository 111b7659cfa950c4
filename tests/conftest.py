"""Fixtures that several rooms' tests share; what they do stands in the modules they come from."""

from tests.loopback_hub.fixture import hub as hub
