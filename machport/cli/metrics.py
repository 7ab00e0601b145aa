"""The daemon's numbers as OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from machport.abi import reports as r
from machport.abi import traps as t
from machport.abi.errors import MachError
from machport.client.oversight import Oversight

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

#: Counters: name, what it counts, and where its number is.
_COUNTERS = (
    ("messages_sent", "Messages that tasks have sent", "kernel", "sent"),
    ("messages_received", "Messages that tasks have received", "kernel", "received"),
    (
        "message_sent_bytes",
        "Bytes of the messages that tasks have sent, with memory beside them",
        "kernel",
        "sent_bytes",
    ),
    ("message_received_bytes", "The same of those that they have received", "kernel", "received_bytes"),
    ("tasks_made", "Tasks that there have been", "kernel", "tasks_made"),
    ("loop_turns", "Turns of the daemon's loop", "loop", "turns"),
    ("loop_sleeps", "Turns in which there was nothing to do", "loop", "sleeps"),
    ("cut_offs", "Connections that broke the protocol", "loop", "cut_offs"),
    ("log_lines", "Lines of the log", "log", "written"),
    ("log_lines_dropped", "Lines of the log that could not be written at once", "log", "dropped"),
    ("trace_records", "Records of traces", "trace", "records"),
    ("trace_records_lost", "Records that were dropped because their reader was too slow", "trace", "lost"),
)
#: The same of what there is now.
_GAUGES = (
    ("tasks", "Tasks that live", "tasks"),
    ("connections", "Tasks that have a process", "connections"),
    ("threads", "Channels of threads", "threads"),
    ("ports", "Ports that live, those of tasks and files included", "ports"),
    ("names", "Names of all tasks", "names"),
    ("queued_messages", "Messages in queues, notifications included", "queued"),
    ("blocked_calls", "Calls that wait to send or to receive", "blocked"),
    ("descriptors", "Descriptors that the daemon has open", "descriptors"),
    ("resident_bytes", "Memory of the daemon", "resident_bytes"),
)
#: Counters with one label: name, what it counts, the label, and where its numbers are.
_FAMILIES = (
    ("calls", "Traps by call", "call", "calls"),
    ("refusals", "Calls that were answered with a return code that is not success", "code", "refusals"),
    ("notifications", "Notifications by kind", "kind", "notified"),
    ("deaths", "Tasks that ended, by what ended them", "cause", "deaths"),
)


class DaemonCollector(Collector):
    """The daemon's numbers, as what makes text of them wants them."""

    def __init__(self, metrics: r.Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily]:
        metrics = self._metrics
        for name, says, part, field in _COUNTERS:
            yield CounterMetricFamily(f"machport_{name}", says, getattr(metrics, part)[field])
        for name, says, label, part in _FAMILIES:
            family = CounterMetricFamily(f"machport_{name}", says, labels=[label])
            for value, count in sorted(getattr(metrics, part).items()):
                family.add_metric([value], count)
            yield family
        for name, says, field in _GAUGES:
            yield GaugeMetricFamily(f"machport_{name}", says, metrics.now[field])
        yield GaugeMetricFamily("machport_trace_active", "Whether a trace is being written", metrics.trace["active"])
        yield GaugeMetricFamily("machport_start_time_seconds", "When the daemon began, since the epoch", metrics.began)


def ask(oversight: Oversight) -> r.Metrics:
    """The numbers of now."""
    return r.unpack_report(oversight.report(t.REPORT_METRICS), r.Metrics)


def as_text(metrics: r.Metrics) -> str:
    """Numbers as OpenMetrics text."""
    text: bytes = generate_latest(_registry(metrics))  # type: ignore[no-untyped-call]
    return text.decode()


def _registry(metrics: r.Metrics) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DaemonCollector(metrics))
    return registry


def serve(port: int, ready: Callable[[int], object]) -> None:
    """Offer the numbers to whoever scrapes this host's own address, until interrupted.

    Whoever scrapes while no daemon runs is told so, with the status 503.

    Args:
        port: 0 for any; ``ready`` is called with the one that it is.

    Raises:
        OSError: the port cannot be had.
    """
    with make_server("127.0.0.1", port, _answer, ThreadingWSGIServer, _Handler) as server:
        ready(server.server_port)
        server.serve_forever()


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nobody wants a line for each scrape."""


def _answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    try:
        # Each time anew: the daemon may be another one by then.
        with Oversight("metrics") as oversight:
            metrics = ask(oversight)
    except MachError as error:
        start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{error.says}\n".encode(errors="replace")]
    answer: Iterable[bytes] = make_wsgi_app(_registry(metrics))(environ, start_response)
    return answer
