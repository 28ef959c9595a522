"""TLS sessions of our own, for the commands that talk themselves: connect, echo, demo.

Imports: connection, relay, tls.
Touches: sockets, standard input and output.
"""
