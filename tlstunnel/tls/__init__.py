"""TLS as the daemon needs it: the first message, contexts, staples, the reasons of failed handshakes.

Imports: values, access, x509, `_openssl`, `config.model`.
Touches: OpenSSL, through pyOpenSSL and `_openssl`. Files only through x509.
"""
