"""What is said before TLS, by the name a protocol has in a configuration and for `openssl s_client -starttls`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tlstunnel.connection.starttls import imap, ldap, mysql, nntp, pop3, postgres, sieve, smtp, text, xmpp
from tlstunnel.connection.starttls.conversation import Conversation
from tlstunnel.connection.starttls.negotiation import Asking, Negotiation
from tlstunnel.connection.starttls.text import Dialect, TextServer

_DIALECTS = {
    "smtp": smtp.SMTP,
    "lmtp": smtp.LMTP,
    "imap": imap.IMAP,
    "pop3": pop3.POP3,
    "sieve": sieve.SIEVE,
    "nntp": nntp.NNTP,
}

ASK: dict[str, Callable[[], Conversation]] = {name: partial(text.client, each) for name, each in _DIALECTS.items()} | {
    "postgres": postgres.client,
    "ldap": ldap.client,
    "mysql": mysql.client,
}
"""We ask a server for TLS, on our own behalf."""


def _server(dialect: Dialect, required: bool) -> Negotiation:
    return TextServer(dialect, required=required)


def _client(dialect: Dialect) -> Negotiation:
    return Asking(text.client(dialect), dialect.farewell)


SERVER: dict[str, Callable[[bool], Negotiation]] = {
    name: partial(_server, each) for name, each in _DIALECTS.items()
} | {
    "postgres": lambda required: postgres.Server(required=required),
    "ldap": lambda required: ldap.Server(required=required),
    "mysql": lambda required: mysql.Server(required=required),
    "xmpp": lambda _: xmpp.Server(),
}
"""Clients ask us for TLS, in front of a backend that knows none. Each is given whether TLS is required."""

ALWAYS_REQUIRED = frozenset(("xmpp",))
"""Protocols in which there is nothing to do before TLS but to ask for it."""

CLIENT: dict[str, Callable[[], Negotiation]] = {name: partial(_client, each) for name, each in _DIALECTS.items()} | {
    "postgres": postgres.Client,
    "ldap": lambda: Asking(ldap.client(), ldap.farewell),
    "mysql": mysql.Client,
    "xmpp": xmpp.Client,
}
"""We ask the backend for TLS, on behalf of a client that knows none."""
