"""What Prometheus reads: requests by route and status, their seconds, and what is served."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from l2q.serving.shelf import Shelf

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """Of one service; the text is in Prometheus' format."""

    TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, shelf: Shelf) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "l2q_requests", "Requests answered", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "l2q_request_seconds",
            "From a request's arrival to the end of its answer",
            ("route",),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._registry.register(_OfShelf(shelf))
        ProcessCollector(registry=self._registry)

    def note(self, route: str, status: int, seconds: float) -> None:
        """One request. ``route`` is one of the few that there are, never what a reader wrote."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _OfShelf(Collector):
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def collect(self) -> Iterable[Metric]:
        reloads = CounterMetricFamily(
            "l2q_reloads", "Indexes opened in place of others, or refused", labels=["result"]
        )
        for result, count in self._shelf.reloads.items():
            reloads.add_metric([result], count)
        yield reloads
        for side in ("users", "items"):
            sizes = GaugeMetricFamily(
                f"l2q_index_{side}", f"{side.title()} of an index", labels=["index", "version"]
            )
            for served in self._shelf.served:
                sizes.add_metric([served.name, served.version], len(getattr(served, side)))
            yield sizes
