"""The Finished message: made by one end, checked by the other (RFC 8446 section 4.4.4)."""

from __future__ import annotations

from cryptography.hazmat.primitives import constant_time

from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.messages import Finished
from tlstunnel.tools.tls13.names import AlertDescription, HandshakeType
from tlstunnel.tools.tls13.notes import CheckNote, Role
from tlstunnel.tools.tls13.protection import TrafficKeys
from tlstunnel.tools.tls13.schedule import finished_key, mac


def make_finished(base: TrafficKeys, transcript_hash: bytes) -> Finished:
    """The message of the end that sends with `base`, over the transcript before it."""
    algorithm = base.suite.hash
    return Finished(mac(algorithm, finished_key(algorithm, base.secret), transcript_hash))


def check_finished(message: Finished, base: TrafficKeys, transcript_hash: bytes, by: Role) -> CheckNote:
    """Check the message of the end that sends with `base`.

    Raises:
        Violation: decrypt_error if it does not match, decode_error if it cannot.
    """
    algorithm = base.suite.hash
    key = finished_key(algorithm, base.secret)
    expected = mac(algorithm, key, transcript_hash)
    if len(message.verify_data) != len(expected):
        raise Violation(AlertDescription.DECODE_ERROR, "the peer's Finished is not as long as the hash")
    if not constant_time.bytes_eq(message.verify_data, expected):
        text = "the peer's Finished does not match what was said in this handshake"
        raise Violation(AlertDescription.DECRYPT_ERROR, text)
    text = (
        "HMAC(finished_key, Transcript-Hash before this message) equals verify_data, where finished_key = "
        f'HKDF-Expand-Label({base.name}, "finished", "", Hash.length)'
    )
    values = (("finished_key", key), ("Transcript-Hash", transcript_hash), ("verify_data", expected))
    return CheckNote(by, HandshakeType.FINISHED, text, values)
