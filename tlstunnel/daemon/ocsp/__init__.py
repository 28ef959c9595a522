"""Fetching the proofs that our certificates are not revoked, in a process that holds no key.

Imports: `daemon.processes`, x509, tls.
Touches: a forked process that asks responders over the network, and a folder that keeps their answers.
"""
