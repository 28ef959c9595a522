"""What cryptography raises for certificates, requests, lists and responses that it cannot read.

It parses most parts only when they are looked at, so any of these may come from any attribute of a stranger's
certificate. Whoever looks into one catches them all, by this one name.
"""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

PARSE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    LookupError,  # version 49: a name's attribute with an ASN.1 type it has no entry for
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
