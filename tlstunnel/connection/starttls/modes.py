"""The negotiation for each protocol in each mode, by the name it has in a configuration."""

from __future__ import annotations

from collections.abc import Callable

from tlstunnel.connection.starttls import imap, ldap, mysql, nntp, pop3, postgres, sieve, smtp, xmpp
from tlstunnel.connection.starttls.conversation import Conversation
from tlstunnel.connection.starttls.negotiation import Asking, Negotiation
from tlstunnel.connection.starttls.text import Dialect, TextServer


def _server(dialect: Dialect) -> Callable[[bool], Negotiation]:
    return lambda required: TextServer(dialect, required=required)


def _client(conversation: Callable[[], Conversation], dialect: Dialect) -> Callable[[], Negotiation]:
    return lambda: Asking(conversation(), dialect.farewell)


SERVER: dict[str, Callable[[bool], Negotiation]] = {
    "postgres": lambda required: postgres.Server(required=required),
    "smtp": _server(smtp.SMTP),
    "lmtp": _server(smtp.LMTP),
    "imap": _server(imap.IMAP),
    "pop3": _server(pop3.POP3),
    "sieve": _server(sieve.SIEVE),
    "nntp": _server(nntp.NNTP),
    "ldap": lambda required: ldap.Server(required=required),
    "mysql": lambda required: mysql.Server(required=required),
    "xmpp": lambda _: xmpp.Server(),
}
"""Clients ask us for TLS, in front of a backend that knows none. Each is given whether TLS is required."""

ALWAYS_REQUIRED = frozenset(("xmpp",))
"""Protocols in which there is nothing to do before TLS but to ask for it."""

CLIENT: dict[str, Callable[[], Negotiation]] = {
    "postgres": postgres.Client,
    "smtp": _client(smtp.client, smtp.SMTP),
    "lmtp": _client(smtp.lmtp_client, smtp.LMTP),
    "imap": _client(imap.client, imap.IMAP),
    "pop3": _client(pop3.client, pop3.POP3),
    "sieve": _client(sieve.client, sieve.SIEVE),
    "nntp": _client(nntp.client, nntp.NNTP),
    "ldap": lambda: Asking(ldap.client(), ldap.farewell),
    "mysql": mysql.Client,
    "xmpp": xmpp.Client,
}
"""We ask the backend for TLS, on behalf of a client that knows none."""
