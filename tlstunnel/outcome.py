"""How a connection ended, in one vocabulary: the same `CloseReason` is decided, logged and counted.

A reason belongs to the stage in which the connection ended, and the stage decides which counter it is a label of:

    stage      ended                                   counter
    ADMIT      before any TLS work                     connections_rejected_total{reason}
    HANDSHAKE  during the client's or backend's TLS    handshake_failures_total{reason}
    DIAL       while no backend could be reached       backend_connect_failures_total{reason}
    LINK       while bytes were relayed                (only connections_total)

Every connection, whatever its stage, is counted once in connections_total{result}, with the reason's label.
"""

from __future__ import annotations

import errno
from enum import Enum, unique


@unique
class Fault(Enum):
    """Whose doing it was. `NOBODY` is an ending that nobody need look at."""

    NOBODY = "nobody"
    CLIENT = "client"
    BACKEND = "backend"
    OPERATOR = "operator"
    US = "us"


@unique
class Stage(Enum):
    """How far the connection had come when it ended."""

    ADMIT = "admit"
    HANDSHAKE = "handshake"
    DIAL = "dial"
    LINK = "link"


@unique
class CloseReason(Enum):
    """Why a connection ended: its label in metrics and logs, the stage, the fault, and a sentence for people."""

    label: str
    stage: Stage
    fault: Fault
    text: str

    # There is one object for each member; hashing it by identity spares a call into Python at every count.
    __hash__ = object.__hash__

    def __init__(self, label: str, stage: Stage, fault: Fault, text: str) -> None:
        self.label, self.stage, self.fault, self.text = label, stage, fault, text

    # While bytes were relayed.
    FINISHED = ("finished", Stage.LINK, Fault.NOBODY, "both sides finished")
    TRUNCATED = ("truncated", Stage.LINK, Fault.NOBODY, "a TLS peer closed without close_notify")
    TRUNCATED_STRICT = ("truncated_strict", Stage.LINK, Fault.CLIENT, "closed without close_notify under strict_close")
    CLIENT_RESET = ("client_reset", Stage.LINK, Fault.NOBODY, "client reset the connection")
    BACKEND_RESET = ("backend_reset", Stage.LINK, Fault.NOBODY, "backend reset the connection")
    CLIENT_TLS_ERROR = ("client_tls_error", Stage.LINK, Fault.CLIENT, "client broke the TLS protocol")
    BACKEND_TLS_ERROR = ("backend_tls_error", Stage.LINK, Fault.BACKEND, "backend broke the TLS protocol")
    CLIENT_ALERT = ("client_alert", Stage.LINK, Fault.CLIENT, "client sent a fatal TLS alert")
    BACKEND_ALERT = ("backend_alert", Stage.LINK, Fault.BACKEND, "backend sent a fatal TLS alert")
    CLIENT_TIMEOUT = ("client_timeout", Stage.LINK, Fault.CLIENT, "client stopped answering")
    BACKEND_TIMEOUT = ("backend_timeout", Stage.LINK, Fault.BACKEND, "backend stopped answering")
    IDLE_TIMEOUT = ("idle_timeout", Stage.LINK, Fault.NOBODY, "nothing moved for idle_timeout")
    HALF_CLOSE_TIMEOUT = (
        "half_close_timeout",
        Stage.LINK,
        Fault.NOBODY,
        "one side had finished and nothing moved for half_close_timeout",
    )
    MAX_LIFETIME = ("max_lifetime", Stage.LINK, Fault.NOBODY, "open for max_lifetime")
    DRAINED = ("drained", Stage.LINK, Fault.US, "cut at the end of drain_timeout")
    INTERNAL_ERROR = ("internal_error", Stage.LINK, Fault.US, "an error of ours; please report it")

    # Before any TLS work. Of limits and networks only this text is logged, so it says what to do as well.
    REJECT_PER_IP = (
        "max_connections_per_ip",
        Stage.ADMIT,
        Fault.CLIENT,
        "its address has max_connections_per_ip open; raise that if it needs more",
    )
    REJECT_CONNECTION_RATE = (
        "connection_rate_per_ip",
        Stage.ADMIT,
        Fault.CLIENT,
        "its address is over connection_rate_per_ip; raise that if it needs more",
    )
    REJECT_HANDSHAKE_RATE = (
        "handshake_rate",
        Stage.ADMIT,
        Fault.CLIENT,
        "all clients together are over handshake_rate; raise that if this machine can do more",
    )
    REJECT_NETWORK = (
        "network_denied",
        Stage.ADMIT,
        Fault.CLIENT,
        "its address is not admitted; allow_from and deny_from say which are",
    )
    PROXY_HEADER_MISSING = (
        "proxy_header_missing",
        Stage.ADMIT,
        Fault.CLIENT,
        "client did not begin with a PROXY protocol header",
    )
    PROXY_HEADER_MALFORMED = ("proxy_header_malformed", Stage.ADMIT, Fault.CLIENT, "malformed PROXY protocol header")
    PROXY_HEADER_UNTRUSTED = (
        "proxy_header_untrusted",
        Stage.ADMIT,
        Fault.CLIENT,
        "client may not send PROXY protocol headers",
    )

    # During the TLS handshake with the client (server mode) or with the backend (client mode).
    NOT_TLS = ("not_tls", Stage.HANDSHAKE, Fault.CLIENT, "peer does not speak TLS")
    HANDSHAKE_EOF = ("eof", Stage.HANDSHAKE, Fault.CLIENT, "peer closed during the handshake")
    HANDSHAKE_RESET = ("reset", Stage.HANDSHAKE, Fault.CLIENT, "peer reset the connection during the handshake")
    HANDSHAKE_TIMEOUT = ("timeout", Stage.HANDSHAKE, Fault.CLIENT, "no complete handshake within handshake_timeout")
    NO_SHARED_VERSION = ("no_shared_version", Stage.HANDSHAKE, Fault.CLIENT, "no TLS version in common")
    NO_SHARED_CIPHER = ("no_shared_cipher", Stage.HANDSHAKE, Fault.CLIENT, "no cipher suite in common")
    NO_SHARED_GROUP = ("no_shared_group", Stage.HANDSHAKE, Fault.CLIENT, "no key-exchange group in common")
    NO_SHARED_SIGNATURE = (
        "no_shared_signature_algorithm",
        Stage.HANDSHAKE,
        Fault.CLIENT,
        "no signature algorithm in common that fits the certificate",
    )
    NO_SHARED_ALPN = ("no_shared_alpn", Stage.HANDSHAKE, Fault.CLIENT, "no application protocol (ALPN) in common")
    UNRECOGNIZED_NAME = ("unrecognized_name", Stage.HANDSHAKE, Fault.CLIENT, "no sni entry is for this server name")
    NO_CLIENT_CERTIFICATE = (
        "no_client_certificate",
        Stage.HANDSHAKE,
        Fault.CLIENT,
        "client sent no certificate where one is required",
    )
    UNKNOWN_CA = ("unknown_ca", Stage.HANDSHAKE, Fault.CLIENT, "certificate does not chain to a trusted CA")
    EXPIRED_CERTIFICATE = ("expired_certificate", Stage.HANDSHAKE, Fault.CLIENT, "certificate has expired")
    NOT_YET_VALID = ("not_yet_valid_certificate", Stage.HANDSHAKE, Fault.CLIENT, "certificate is not valid yet")
    REVOKED = ("revoked", Stage.HANDSHAKE, Fault.CLIENT, "certificate is revoked")
    CRL_UNUSABLE = ("crl_unusable", Stage.HANDSHAKE, Fault.OPERATOR, "no usable CRL for the certificate's issuer")
    WRONG_PURPOSE = ("wrong_purpose", Stage.HANDSHAKE, Fault.CLIENT, "certificate is not for this use")
    BAD_CERTIFICATE = ("bad_certificate", Stage.HANDSHAKE, Fault.CLIENT, "certificate cannot be used")
    NAME_MISMATCH = ("name_mismatch", Stage.HANDSHAKE, Fault.BACKEND, "certificate is for another name")
    DENIED = ("denied", Stage.HANDSHAKE, Fault.CLIENT, "the access rules do not admit this identity")
    PEER_ALERT = ("alert", Stage.HANDSHAKE, Fault.CLIENT, "peer refused the handshake with an alert")
    PROTOCOL_ERROR = ("protocol_error", Stage.HANDSHAKE, Fault.CLIENT, "peer broke the TLS protocol")
    STARTTLS_REFUSED = (
        "starttls_refused",
        Stage.HANDSHAKE,
        Fault.BACKEND,
        "server does not go on to TLS when asked for it in plaintext; look whether it has TLS, and what starttls says",
    )
    STARTTLS_INJECTED = (
        "starttls_injected",
        Stage.HANDSHAKE,
        Fault.CLIENT,
        "more in plaintext behind the request for TLS; look who adds it on the way, or update who sends it too early",
    )
    STARTTLS_MISSING = (
        "starttls_missing",
        Stage.HANDSHAKE,
        Fault.CLIENT,
        "client goes on without the TLS that starttls_required demands; switch its STARTTLS on",
    )
    STARTTLS_TLS_AT_ONCE = (
        "starttls_tls_at_once",
        Stage.HANDSHAKE,
        Fault.CLIENT,
        "client begins with TLS where plaintext comes first; set it to STARTTLS, or to none in front of client mode",
    )
    STARTTLS_MALFORMED = (
        "starttls_malformed",
        Stage.HANDSHAKE,
        Fault.CLIENT,
        "client does not speak the protocol of starttls; correct one of the two, unless it is a scanner",
    )
    STARTTLS_TOO_LONG = (
        "starttls_too_long",
        Stage.HANDSHAKE,
        Fault.CLIENT,
        "too much was said before TLS; look whether starttls names the protocol, unless it is a scanner",
    )
    STARTTLS_BACKEND = (
        "starttls_backend",
        Stage.HANDSHAKE,
        Fault.BACKEND,
        "what the backend says before TLS is of no use; look at its log, and whether starttls names its protocol",
    )
    HANDSHAKE_DRAINED = ("shutdown", Stage.HANDSHAKE, Fault.US, "tlstunnel stopped during the handshake")

    # While no backend could be reached.
    BACKEND_REFUSED = ("refused", Stage.DIAL, Fault.BACKEND, "backend refused the connection")
    BACKEND_UNRESOLVABLE = ("unresolvable", Stage.DIAL, Fault.BACKEND, "backend's name does not resolve")
    BACKEND_UNREACHABLE = ("unreachable", Stage.DIAL, Fault.BACKEND, "no route to the backend")
    BACKEND_CONNECT_TIMEOUT = (
        "connect_timeout",
        Stage.DIAL,
        Fault.BACKEND,
        "backend did not accept within connect_timeout",
    )
    BACKEND_NO_SOCKET = ("no_socket", Stage.DIAL, Fault.BACKEND, "backend's unix socket does not exist")
    BACKEND_PERMISSION = ("permission", Stage.DIAL, Fault.OPERATOR, "not permitted to connect to the backend")
    BACKEND_NO_DESCRIPTORS = ("no_descriptors", Stage.DIAL, Fault.OPERATOR, "no descriptor was free")
    BACKEND_NO_PORT = ("no_port", Stage.DIAL, Fault.OPERATOR, "no local port was free towards the backend")
    BACKEND_NO_MEMORY = ("no_memory", Stage.DIAL, Fault.OPERATOR, "the kernel had no memory for the connection")
    BACKEND_NO_SOURCE = ("no_source", Stage.DIAL, Fault.OPERATOR, "source_address cannot be used")
    CLIENT_GONE = ("client_gone", Stage.DIAL, Fault.NOBODY, "client reset the connection before the backend answered")

    def __repr__(self) -> str:
        return f"CloseReason.{self.name}"


OUR_ERRORS = frozenset((errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOBUFS, errno.ENOMEM, errno.ENOTSOCK))
"""What a call of ours or our machine is to blame for, whichever socket it was made on."""
_OUR_REASONS = frozenset(("internal error", "malloc failure"))


def of_socket(error: OSError, *, is_client: bool) -> tuple[CloseReason, str]:
    """The reason, and a detail for people, where the connection to this side of a link failed."""
    if isinstance(error, TimeoutError):
        return (CloseReason.CLIENT_TIMEOUT if is_client else CloseReason.BACKEND_TIMEOUT), ""
    is_reset = isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN
    detail = "" if is_reset else (error.strerror or str(error)).lower()
    return (CloseReason.CLIENT_RESET if is_client else CloseReason.BACKEND_RESET), detail


def of_session(reasons: tuple[str, ...], *, is_client: bool) -> CloseReason:
    """The reason where the session with this side failed: its alert, its breach of the protocol, or our library."""
    if any("alert" in reason for reason in reasons):
        return CloseReason.CLIENT_ALERT if is_client else CloseReason.BACKEND_ALERT
    if _OUR_REASONS.intersection(reasons):
        return CloseReason.INTERNAL_ERROR
    return CloseReason.CLIENT_TLS_ERROR if is_client else CloseReason.BACKEND_TLS_ERROR
