"""Counting, and what Prometheus reads of it."""

import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.runtime import exposition
from services.runtime.figures import Durations, Figures
from services.runtime.health import STALE_S, Pulse


class Delivery:
    def __init__(self, deliveries: int = 1) -> None:
        self.deliveries = deliveries
        self.outcome = "cancelled"


def samples(figures: Figures, connected: bool = True) -> dict[tuple[str, str], float]:
    text = exposition.exposed(figures, connected=connected).decode()
    return {
        (
            sample.name,
            " ".join(f"{name}={value}" for name, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_handled_message_is_counted_with_its_outcome_and_its_time() -> None:
    figures = Figures()
    delivery = Delivery()
    with figures.handling("planner", "metadata.ready", delivery):
        assert (
            samples(figures)["williw_handlers_in_flight", "route=metadata.ready service=planner"]
            == 1
        )
        delivery.outcome = "refused"
    found = samples(figures)
    assert (
        found[
            "williw_messages_handled_total", "outcome=refused route=metadata.ready service=planner"
        ]
        == 1
    )
    assert found["williw_handler_seconds_count", "route=metadata.ready service=planner"] == 1
    assert found["williw_handlers_in_flight", "route=metadata.ready service=planner"] == 0
    assert ("williw_redeliveries_total", "route=metadata.ready service=planner") not in found


def test_a_handler_that_raises_is_counted_and_a_second_delivery_too() -> None:
    figures = Figures()
    with pytest.raises(RuntimeError), figures.handling("planner", "r", Delivery(2)):
        raise RuntimeError
    found = samples(figures)
    assert found["williw_messages_handled_total", "outcome=cancelled route=r service=planner"] == 1
    assert found["williw_redeliveries_total", "route=r service=planner"] == 1


def test_durations_fall_into_their_buckets() -> None:
    durations = Durations()
    for seconds in (0.005, 0.01, 0.02, 9999.0):
        durations.add(seconds)
    buckets = dict(durations.cumulative())
    assert (buckets["0.01"], buckets["0.03"], buckets["3600.0"], buckets["+Inf"]) == (2, 3, 3, 4)
    assert durations.sum_s == pytest.approx(9999.035)


def test_the_bus_is_seen_coming_and_going() -> None:
    figures = Figures()
    figures.reconnects = 2
    found = samples(figures, connected=False)
    assert found["williw_bus_connected", ""] == 0
    assert found["williw_bus_reconnects_total", ""] == 2


def test_no_label_names_a_job_or_a_model() -> None:
    figures = Figures()
    with figures.handling("planner", "metadata.ready", Delivery()):
        figures.facts_said["SplitPlanned"] += 1
        figures.dead_letters["planner"] += 1
    text = exposition.exposed(figures, connected=True).decode()
    labels = {
        name
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for name in sample.labels
    }
    assert labels == {"service", "route", "outcome", "fact", "le"}


def test_a_service_without_health_does_not_load_prometheus() -> None:
    program = "import sys, services.runtime.actor; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "prometheus_client" not in done.stdout.split()


def test_the_pulse_tells_how_long_the_loop_stood_still() -> None:
    now = [100.0]
    pulse = Pulse(lambda: now[0])
    now[0] += STALE_S
    assert pulse.stopped_s == 0
    now[0] += 1
    assert pulse.stopped_s == STALE_S + 1
