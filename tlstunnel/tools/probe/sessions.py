"""Resumption: whether a client that was here before is recognised, in the ways that each version has."""

from __future__ import annotations

import ssl

from tlstunnel.tools.probe.ask import Asker
from tlstunnel.tools.probe.findings import Resumption
from tlstunnel.tools.probe.handshake import Handshake, Plan, handshake
from tlstunnel.tools.probe.legacy import Contexts
from tlstunnel.tools.probe.legacy import handshake as legacy_handshake


def resume_modern(found: Resumption, asker: Asker, before: Handshake) -> None:
    """TLS 1.3: use the last ticket of an earlier handshake (RFC 8446 section 2.2)."""
    if not before.is_complete or before.refused_after:
        return
    found.tickets = len(before.sessions)
    if not before.sessions:
        found.psk = False
        return
    session = before.sessions[-1]
    found.lifetime_s, found.early_data = session.lifetime, session.max_early_data
    plan = Plan(server_name=asker.server_name, alpn=asker.alpn, session=session)
    again = handshake(asker.route, plan)
    if again.is_complete:
        found.psk = again.is_resumed


def resume_legacy(found: Resumption, asker: Asker, contexts: Contexts) -> None:
    """TLS 1.2 and before: by the server's memory (RFC 5246 section 7.3), and by a ticket (RFC 5077)."""
    found.session_id = _is_resumed(asker, contexts.with_ids, needs_ticket=False)
    found.ticket = _is_resumed(asker, contexts.with_tickets, needs_ticket=True)


def _is_resumed(asker: Asker, context: ssl.SSLContext, *, needs_ticket: bool) -> bool | None:
    first = legacy_handshake(asker.route, context, asker.server_name)
    session = first.session
    if not first.is_complete or session is None:
        return None
    if not (session.has_ticket if needs_ticket else session.id):
        return False
    again = legacy_handshake(asker.route, context, asker.server_name, session)
    return again.is_resumed if again.is_complete else None
