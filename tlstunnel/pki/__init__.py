"""Certificates: authority, issue, request, bundle, describe."""
