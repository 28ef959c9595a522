"""`tlstunnel cert`: certificate authorities, certificates, requests, bundles, revocation.

Imports: errors, lifetime, x509.
Touches: the CA folder, and files of keys and certificates.
"""
