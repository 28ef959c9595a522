"""What a TLS server offers, found out by asking it: one connection for each question, a few at a time."""
