"""The data plane: a reactor, links of two ends, half-closes. It can be read alone.

Imports: `_openssl`, outcome.
Touches: two sockets per link and one epoll. No trio, configuration, log or metrics.
"""
