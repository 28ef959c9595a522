"""Listening sockets: opened before anything else, kept over reloads, named when they cannot be had.

Imports: errors, address, `config.model`, `daemon.system`.
Touches: listening sockets, unix socket files, descriptors from the service manager.
"""
