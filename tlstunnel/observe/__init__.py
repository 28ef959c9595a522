"""What the daemon shows: shared counters, metrics, log, status.

Imports: values and `config.model`. No connection's socket: the code that has one holds an `Observer`.
Touches: shared memory, log files and sockets, /proc of our own processes.
"""
