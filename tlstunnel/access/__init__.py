"""Who a peer is and whether a service admits it: identities out of certificates, rules, one decision.

Imports: errors, outcome.
Touches: nothing. Values and pure functions, tested without sockets.
"""
