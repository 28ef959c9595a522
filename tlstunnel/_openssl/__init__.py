"""The door to OpenSSL: sessions, contexts and callbacks through the binding below pyOpenSSL.

Nothing else in the package reaches below pyOpenSSL. Importing `binding` fails where it lacks what is needed.
Imports: nothing of ours.
Touches: the memory of OpenSSL. No files, no configuration, no log.
"""

from tlstunnel._openssl.binding import TLSError
from tlstunnel._openssl.contexts import (
    X509_V_ERR_APPLICATION_VERIFICATION,
    X509_V_ERR_CERT_REJECTED,
    X509_V_ERR_CRL_HAS_EXPIRED,
    ask_sessions,
    set_alpn_choice,
    set_groups,
    set_judge,
    set_staple,
    suite_names,
    tell_errors_to,
)
from tlstunnel._openssl.engine import (
    BULK_MIN,
    CHUNK,
    RECORD,
    Engine,
    Scratch,
)
from tlstunnel._openssl.keys import read_key
from tlstunnel._openssl.verify import PURPOSE_CLIENT, PURPOSE_SERVER, ChainVerdict, is_for_host, verify_chain

__all__ = [
    "BULK_MIN",
    "CHUNK",
    "PURPOSE_CLIENT",
    "PURPOSE_SERVER",
    "RECORD",
    "X509_V_ERR_APPLICATION_VERIFICATION",
    "X509_V_ERR_CERT_REJECTED",
    "X509_V_ERR_CRL_HAS_EXPIRED",
    "ChainVerdict",
    "Engine",
    "Scratch",
    "TLSError",
    "ask_sessions",
    "is_for_host",
    "read_key",
    "set_alpn_choice",
    "set_groups",
    "set_judge",
    "set_staple",
    "suite_names",
    "tell_errors_to",
    "verify_chain",
]
