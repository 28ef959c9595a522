"""`tlstunnel probe`: what a TLS server offers, its chain, its weaknesses.

Imports: `tools.tls13`, `tools.pki`, `connection.starttls`, x509.
Touches: connections to the server it was told.
"""
