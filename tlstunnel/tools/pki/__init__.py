"""`tlstunnel cert`: certificate authorities, certificates, requests, bundles, revocation.

Imports: errors, lifetime, address, x509, `_openssl`.
Touches: the CA folder, and files of keys and certificates.
"""
