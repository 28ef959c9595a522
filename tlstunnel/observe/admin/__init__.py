"""The admin endpoint: a process of its own with plain HTTP for Prometheus, probes, people and scripts.

Imports: observe.
Touches: its listening socket and the channels to the workers. It holds no key but that of its own TLS.
"""
