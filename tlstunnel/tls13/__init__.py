"""A TLS 1.3 handshake from first principles, for teaching and probing; never in the data path."""
