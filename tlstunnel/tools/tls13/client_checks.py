"""What a client demands of the server's hello and of its extensions: that they answer what was offered."""

from __future__ import annotations

from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.client_hello import HelloBuilder
from tlstunnel.tools.tls13.extension_block import find
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.messages import CertificateRequest, EncryptedExtensions, ServerHello
from tlstunnel.tools.tls13.names import (
    TLS_1_2,
    TLS_1_3,
    AlertDescription,
    CipherSuite,
    extension_name,
    suite_name,
    version_name,
)
from tlstunnel.tools.tls13.names import ExtensionType as Ext

# Extensions of a ClientHello whose answer, if any, has its place in another message (the table of section 4.2).
_NOT_ENCRYPTED = {
    Ext.KEY_SHARE, Ext.PRE_SHARED_KEY, Ext.PSK_KEY_EXCHANGE_MODES, Ext.SUPPORTED_VERSIONS, Ext.COOKIE, Ext.PADDING,
    Ext.SIGNATURE_ALGORITHMS, Ext.SIGNATURE_ALGORITHMS_CERT, Ext.CERTIFICATE_AUTHORITIES, Ext.STATUS_REQUEST,
    Ext.POST_HANDSHAKE_AUTH, Ext.SIGNED_CERTIFICATE_TIMESTAMP,
}  # fmt: skip


def check_server_hello(message: ServerHello, config: ClientConfig, hello: HelloBuilder) -> CipherSuite:
    """The suite the server chose, if its ServerHello or HelloRetryRequest is an answer to our hello.

    Raises:
        Violation: it is not (section 4.1.3).
    """
    version_body = find(message.extensions, Ext.SUPPORTED_VERSIONS)
    version = ext.read_single(version_body, "supported_versions") if version_body else message.legacy_version
    if version != TLS_1_3:
        raise Violation(AlertDescription.PROTOCOL_VERSION, f"the server chose {version_name(version)}, not TLS 1.3")
    if message.legacy_version != TLS_1_2 or message.compression_method != 0:
        raise illegal("ServerHello changes a field that TLS 1.3 keeps constant")
    if message.session_id != hello.session_id:
        raise illegal("ServerHello does not echo our session id")
    if message.cipher_suite not in config.cipher_suites:
        raise illegal(f"the server chose {suite_name(message.cipher_suite)}, which was not offered")
    allowed = {Ext.SUPPORTED_VERSIONS, Ext.KEY_SHARE, Ext.COOKIE if message.is_retry else Ext.PRE_SHARED_KEY}
    for extension in message.extensions:
        # A cookie alone may come without having been offered (section 4.2).
        was_offered = extension.type in hello.offered_types or extension.type == Ext.COOKIE
        if extension.type not in allowed or not was_offered:
            raise _misplaced(extension.type, hello, "ServerHello")
    return CipherSuite(message.cipher_suite)


def check_encrypted_extensions(message: EncryptedExtensions, hello: HelloBuilder) -> None:
    """Refuse answers to what was not asked, and answers in the wrong place (section 4.2)."""
    for extension in message.extensions:
        if extension.type in _NOT_ENCRYPTED or extension.type not in hello.offered_types:
            raise _misplaced(extension.type, hello, "EncryptedExtensions")


def required(message: ServerHello | CertificateRequest, kind: Ext) -> bytes:
    """The body of an extension that the message must have."""
    body = find(message.extensions, kind)
    if body is None:
        what = type(message).__name__
        raise Violation(AlertDescription.MISSING_EXTENSION, f"{what} lacks the extension {extension_name(kind)}")
    return body


def illegal(text: str) -> Violation:
    """An illegal_parameter to raise."""
    return Violation(AlertDescription.ILLEGAL_PARAMETER, text)


def _misplaced(kind: int, hello: HelloBuilder, where: str) -> Violation:
    if kind in hello.offered_types:
        return illegal(f"{where} has the extension {extension_name(kind)}, which belongs elsewhere")
    text = f"{where} has the extension {extension_name(kind)}, which was not offered"
    return Violation(AlertDescription.UNSUPPORTED_EXTENSION, text)
