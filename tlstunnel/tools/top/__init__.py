"""Asking a running daemon's admin endpoint how it is, and how fast its counters move: for `status` and `top`.

Imports: errors, address, `config.model`, x509.
Touches: one connection to the admin endpoint, and the files of its TLS.
"""
