"""The process's figures in Prometheus's text format. Imports prometheus-client: load it late."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from services.runtime.figures import Figures

CONTENT_TYPE = exposition.CONTENT_TYPE_LATEST
_ROUTE = ("service", "route")


class _Figures(Collector):
    def __init__(self, figures: Figures, *, connected: bool) -> None:
        self._figures = figures
        self._connected = connected

    def collect(self) -> Iterator[Metric]:
        yield from self._routes()
        figures = self._figures
        dead = CounterMetricFamily(
            "williw_dead_letters", "Messages given up and kept as dead letters.", labels=["service"]
        )
        for service, count in figures.dead_letters.items():
            dead.add_metric([service], count)
        yield dead
        said = CounterMetricFamily(
            "williw_facts_said", "Facts this process stored; repetitions do not count.",
            labels=["fact"],
        )  # fmt: skip
        for fact, count in figures.facts_said.items():
            said.add_metric([fact], count)
        yield said
        yield CounterMetricFamily(
            "williw_bus_reconnects", "Times the bus came back.", value=figures.reconnects
        )
        yield GaugeMetricFamily(
            "williw_bus_connected", "1 while the bus is connected.", value=float(self._connected)
        )

    def _routes(self) -> Iterator[Metric]:
        figures = self._figures
        handled = CounterMetricFamily(
            "williw_messages_handled", "Deliveries handled, by how that ended.",
            labels=[*_ROUTE, "outcome"],
        )  # fmt: skip
        for labels, count in figures.handled.items():
            handled.add_metric(labels, count)
        yield handled
        again = CounterMetricFamily(
            "williw_redeliveries", "Deliveries that were not the message's first.", labels=_ROUTE
        )
        for key, count in figures.redelivered.items():
            again.add_metric(key, count)
        yield again
        busy = GaugeMetricFamily(
            "williw_handlers_in_flight", "Deliveries being handled now.", labels=_ROUTE
        )
        for key, count in figures.in_flight.items():
            busy.add_metric(key, count)
        yield busy
        took = HistogramMetricFamily(
            "williw_handler_seconds", "Seconds from a delivery to its end.", labels=_ROUTE
        )
        for key, durations in figures.handler_s.items():
            took.add_metric(key, durations.cumulative(), durations.sum_s)
        yield took


def exposed(figures: Figures, *, connected: bool) -> bytes:
    """The figures and this process's CPU, memory and open files, one metric a line."""
    registry = CollectorRegistry()
    registry.register(_Figures(figures, connected=connected))
    ProcessCollector(registry=registry)
    return exposition.generate_latest(registry)
