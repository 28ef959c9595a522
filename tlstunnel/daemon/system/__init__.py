"""What the machine allows and what it is told: privileges, limits, memory, the service manager.

Imports: errors, `config.model`.
Touches: libc, rlimits, /proc, the notification socket. Knows nothing of connections.
"""
