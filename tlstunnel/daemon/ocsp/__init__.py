"""Fetching OCSP responses to staple, in a process that holds no key.

Imports: `daemon.processes`, x509, tls.
Touches: a forked process that asks responders over the network, and a folder that keeps their answers.
"""
