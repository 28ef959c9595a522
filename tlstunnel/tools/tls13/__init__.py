"""A TLS 1.3 handshake from first principles, on the primitives of cryptography: for teaching and probing.

Imports: errors.
Touches: nothing but randomness. Never in the data path.
"""
