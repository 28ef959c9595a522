"""What the daemon shows: shared counters, metrics, log, status.

Imports: values and `config.model`. Nobody's sockets: whoever does something holds an `Observer`.
Touches: shared memory, log files and sockets, /proc of our own processes.
"""
