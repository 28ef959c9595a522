"""The one package that calls the binding beneath pyOpenSSL.

Why it exists: pyOpenSSL's public methods cost a Python object and a copy at every step, and a relay makes several
steps for every chunk. Calling the same OpenSSL through the binding that pyOpenSSL itself uses costs 0.1 µs a call, and
buffers that are allocated once serve every link of a worker. `probe()` says at start whether all that is needed is
there; where it is not, `tls.portable` does the same work through public methods, slower.

How an engine moves bytes. The scratch has two big areas that all links of a worker share:

    socket --recv_into--> scratch.wire --decrypt--> scratch.plain --send--> the other end
    socket <--send-- engine's output <--encrypt-- scratch.plain <--recv_into-- the other end

Invariants that keep this safe although the areas are shared:

* `decrypt` drains everything that stands in the wire area before it returns, so the next link may overwrite it. A read
  BIO made over the area (no copy) would otherwise point at another link's bytes. An unfinished record is no exception:
  OpenSSL has copied it by then.
* The plain area is larger than the wire area by more than one record, so a full wire area and the record left over
  from before always fit.
* What a slow peer has not taken yet stays in the engine's own output, nowhere else.

Errors: OpenSSL keeps a queue of errors for each thread. Every failure empties it, because a stale entry would make the
next, innocent call look as if it had failed.
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
