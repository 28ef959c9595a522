"""Supervisor and workers: forked, heard, replaced, reloaded, drained.

Imports: every room but the tools and the commands.
Touches: processes, signals, shared memory, the channels between supervisor and workers.
"""
