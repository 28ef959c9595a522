"""TLS values and material: ClientHello, certificates, contexts, identity, rules."""
