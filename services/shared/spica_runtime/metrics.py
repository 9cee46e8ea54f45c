"""What a service counts about itself, in Prometheus' form at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """One set per service, in a registry of its own, so that several may live in one process."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        labels = {"service": service}
        self._handled = Counter(
            "spica_messages",
            "Messages, by what came of them.",
            ["service", "subject", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "spica_handling_seconds",
            "Time from delivery to commit.",
            ["service", "subject"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800),
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "spica_in_flight", "Messages being handled now.", ["service"], registry=self.registry
        ).labels(**labels)
        self._service = service

    def begun(self) -> None:
        """A message is being handled."""
        self._in_flight.inc()

    def ended(self, subject: str, outcome: str, seconds: float) -> None:
        """It is not any more, and this came of it."""
        self._in_flight.dec()
        self._handled.labels(self._service, subject, outcome).inc()
        self._seconds.labels(self._service, subject).observe(seconds)
