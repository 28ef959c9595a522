"""PostgreSQL: SSLRequest, answered by one byte (its protocol's "SSL Session Encryption")."""

from __future__ import annotations

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, shown

SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)


def client() -> Conversation:
    """Ask a PostgreSQL server for TLS."""
    incoming = Incoming()
    yield SSL_REQUEST
    answer = yield from incoming.take(1)
    if answer == b"N":
        raise StartTLSError("the PostgreSQL server has no TLS (ssl = off); turn it on in postgresql.conf")
    if answer != b"S":
        said = shown(answer.decode("latin-1"))
        raise StartTLSError(f"the server answers {said}, not as PostgreSQL does; give the right protocol")
    incoming.end()
