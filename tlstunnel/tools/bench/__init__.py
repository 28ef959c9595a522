"""`tlstunnel bench`: which suite, key and group costs what on this machine, and what it relays.

Imports: tls, relay, x509, `tools.pki`.
Touches: loopback sockets, processes of its own, files of results.
"""
