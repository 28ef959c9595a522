"""What happens to one connection, from accept to the relay: `setup` reads top to bottom.

Imports: values, access, x509, tls, relay, observe. trio only in `bridge`, `dial` and `resolve`.
Touches: the sockets of one connection. No files, no processes.
"""
