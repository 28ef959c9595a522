"""The protocols a client can ask for TLS, by the names that `openssl s_client -starttls` gives them."""

from __future__ import annotations

from collections.abc import Callable

from tlstunnel.connection.starttls import imap, ldap, mysql, nntp, pop3, postgres, sieve, smtp
from tlstunnel.connection.starttls.conversation import Conversation

CLIENTS: dict[str, Callable[[], Conversation]] = {
    "smtp": smtp.client,
    "lmtp": smtp.lmtp_client,
    "imap": imap.client,
    "pop3": pop3.client,
    "sieve": sieve.client,
    "nntp": nntp.client,
    "postgres": postgres.client,
    "ldap": ldap.client,
    "mysql": mysql.client,
}
