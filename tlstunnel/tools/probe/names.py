"""Distinguished names that come alone, without a certificate around them, as a server's list of CAs does."""

from __future__ import annotations

import warnings

from cryptography import x509

from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.tools.pki.names import text_of
from tlstunnel.x509.der import SEQUENCE, wrap

# A revocation list without entries, around the name: the library reads names only inside something larger.
_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
_DATE = b"\x17\x0d260101000000Z"
_NO_SIGNATURE = b"\x03\x01\x00"


def text_of_der(name: bytes) -> str:
    """The name as text; one that is none comes as hexadecimal digits."""
    envelope = wrap(SEQUENCE, wrap(SEQUENCE, _ALGORITHM, name, _DATE), _ALGORITHM, _NO_SIGNATURE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stranger's name may be longer than X.520 allows
            return text_of(x509.load_der_x509_crl(envelope).issuer)
    except PARSE_ERRORS:
        return f"0x{name[:40].hex()}"
