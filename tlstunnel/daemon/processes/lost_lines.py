"""What is reported at an end, of a worker or of the daemon: that the log lost lines there must never stay hidden.

A worker waits for the log's reader before it ends (`Log.finish`); what the reader did not take is in the worker's row
of the counters, also where the worker was killed. The supervisor reports how many. Its own lines go to the same
reader, so when the daemon ends and that one still takes nothing, the places left are the metrics (for as long as
somebody asks), the service manager's status, and stderr where the log goes elsewhere.
"""

from __future__ import annotations

import contextlib

from tlstunnel.daemon.processes.children import Child
from tlstunnel.daemon.processes.publish import cut_text
from tlstunnel.daemon.processes.state import Daemon
from tlstunnel.observe.sinks import StreamSink


def report_worker(daemon: Daemon, child: Child) -> None:
    """A worker has ended and its row is still its own: log how many of its log lines were lost, if any."""
    process, counters = daemon.generation.series.process, child.row.counters
    waiting = counters[process.log_waiting]  # it was killed, and did not come to count them
    daemon.row.counters[process.log_dropped] += waiting
    lost = counters[process.log_unreported] + waiting
    if not lost:
        return
    text = f"{_lines(lost)} of worker {child.pid} were lost: the log's reader does not take them"
    daemon.log.message("warning", "dropped", text, pid=child.pid, count=lost)
    daemon.lost_lines = daemon.lost_lines + lost if daemon.log.has_pending else 0


def report_stop(daemon: Daemon, cut: int) -> None:
    """The daemon ends: log its last line, and report lost lines wherever that is still possible.

    Args:
        cut: connections that were cut at the end of the drain.
    """
    text = f"stopped; {cut_text(cut)} at the end of the drain" if cut else "stopped"
    daemon.log.message("warning" if cut else "info", "stop", text)
    lost = daemon.log.finish()
    if lost:
        text = f"{text}; {_lines(lost + daemon.lost_lines)} were lost: the log's reader does not take them"
        daemon.notifier.status(text)
        if daemon.generation.config.log.target != "stderr":
            with contextlib.suppress(OSError):
                StreamSink(environ={}).write(f"tlstunnel: {text}\n".encode())
    daemon.notifier.barrier()


def _lines(number: int) -> str:
    return f"{number} log line" if number == 1 else f"{number} log lines"
