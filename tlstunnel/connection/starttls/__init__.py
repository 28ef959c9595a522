"""One small sans-I/O file per protocol that upgrades a plaintext conversation to TLS; `modes` lists them all.

Imports: errors.
Touches: nothing; bytes in, bytes out. `tools.probe` uses them as well.
"""
