"""The daemon's processes: a supervisor without an event loop, workers, the admin process, and what they share.

Imports: every room but the tools and the commands.
Touches: processes, signals, listening sockets, the machine's limits.
"""
