"""The door to OpenSSL: sessions, contexts and callbacks through the binding below pyOpenSSL.

Nothing else in the package reaches below pyOpenSSL. `binding` says at start whether what is needed is there.
Imports: nothing of ours.
Touches: the memory of OpenSSL. No files, no configuration, no log.
"""

from tlstunnel._openssl.binding import TLSError, probe
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
    CHUNK,
    FAT,
    MAX_ANSWERS,
    RECORD,
    UNFINISHED_RECORD,
    UNREAD_ANSWERS,
    Engine,
    Scratch,
)
from tlstunnel._openssl.keys import read_key
from tlstunnel._openssl.protocol import TLSEngine

__all__ = [
    "CHUNK",
    "FAT",
    "MAX_ANSWERS",
    "RECORD",
    "UNFINISHED_RECORD",
    "UNREAD_ANSWERS",
    "X509_V_ERR_APPLICATION_VERIFICATION",
    "X509_V_ERR_CERT_REJECTED",
    "X509_V_ERR_CRL_HAS_EXPIRED",
    "Engine",
    "Scratch",
    "TLSEngine",
    "TLSError",
    "ask_sessions",
    "probe",
    "read_key",
    "set_alpn_choice",
    "set_groups",
    "set_judge",
    "set_staple",
    "suite_names",
    "tell_errors_to",
]
