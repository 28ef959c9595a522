"""What a story says about each message and each stage of the key schedule: title, section of RFC 8446, sentences."""

from __future__ import annotations

from tlstunnel.tools.tls13.extension_block import find
from tlstunnel.tools.tls13.messages import Certificate, ClientHello, KeyUpdate, Message, ServerHello
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.names import HandshakeType, message_name
from tlstunnel.tools.tls13.notes import Role

Phrase = tuple[str, str, list[str]]

_CLIENT_HELLO = [
    "The client proposes: versions, cipher suites, groups, signatures. It also guesses which groups the server will "
    "take and sends a public value for each at once, so that a right guess costs no round trip.",
    "There are no keys yet: this message is plaintext, and an eavesdropper can read it, the server's name included.",
]
_CLIENT_HELLO_AGAIN = [
    "The client says its hello again, changed only as it was told to: another key share, the cookie if there was one.",
    "The transcript now starts with a made-up message of type message_hash that holds the hash of the first "
    "ClientHello, so a server that keeps no state can rebuild it from the cookie.",
]
_RETRY = [
    "The server wants another ClientHello: as a rule because it can use none of the key shares, but knows a group "
    "that the client named. The message has the form of a ServerHello; the fixed random tells them apart.",
]
_SERVER_HELLO = [
    "The server chooses, once: version, cipher suite, and one of the client's groups, for which it adds its own "
    "public value. Now each end has its private value and the other's public one.",
    "This is the last handshake message in plaintext.",
]
_ENCRYPTED_EXTENSIONS = [
    "The server's answers to extensions that the keys do not depend on, kept from eavesdroppers.",
]
_CERTIFICATE_REQUEST = [
    "The server wants to know who the client is, and says which signatures it can verify.",
]
_SERVER_CERTIFICATE = [
    "The server's certificate, then the CAs that lead to a trusted one. An eavesdropper sees only the length.",
    "A certificate is public and proves nothing by itself: the next message does.",
]
_CLIENT_CERTIFICATE = ["The client's certificate, asked for by the server."]
_NO_CLIENT_CERTIFICATE = [
    "The client has no certificate to show, and says so with an empty list. It is up to the server to go on.",
]
_CERTIFICATE_VERIFY = [
    "The sender signs the hash of everything said so far, up to and including its Certificate. Only the "
    "holder of the certificate's private key can do that, and the signature is of no use in any other handshake.",
    "What is signed: 64 spaces, a text that names the signer, a zero byte, and the transcript hash.",
]
_FINISHED = [
    "An HMAC over the hash of everything said so far, with a key that only the two ends can have. It confirms that "
    "both saw the same messages and derived the same secrets: a change to any of them, the plaintext hellos "
    "included, makes it wrong.",
]
_SERVER_FINISHED = "With it the server's part is done, after one round trip."
_CLIENT_FINISHED = "With it the handshake is complete; application data may follow in the same packet."
_TICKET = [
    "A ticket for the next connection. Together with the secret below, which never crosses the wire, it saves "
    "certificate and signature then. It is no longer part of the handshake, nor of the transcript.",
]
_KEY_UPDATE = [
    "The sender changes its keys: this is its last record under the old ones. It hashes its traffic secret once, so "
    "that somebody who steals the new keys cannot read what was sent before.",
]
_END_OF_EARLY_DATA = ["The last record under the early keys: no more 0-RTT data follows."]


def of_message(message: Message, sender: Role, *, is_second_hello: bool) -> Phrase:
    """Title, section, sentences."""
    kind, who = message.type, f"{sender.value.capitalize()}'s"
    match message:
        case ClientHello() if is_second_hello:
            return "ClientHello, again", "4.1.2", _CLIENT_HELLO_AGAIN
        case ClientHello():
            text = list(_CLIENT_HELLO)
            if find(message.extensions, Ext.PRE_SHARED_KEY) is not None:
                text.insert(
                    1,
                    "It offers to resume: the ticket names a secret that both ends keep from an earlier connection, "
                    "and the binder, an HMAC over this message up to the binders, proves that the client knows it.",
                )
            return "ClientHello", "4.1.2", text
        case ServerHello(is_retry=True):
            return "HelloRetryRequest", "4.1.4", _RETRY
        case ServerHello():
            text = list(_SERVER_HELLO)
            if find(message.extensions, Ext.PRE_SHARED_KEY) is not None:
                text.append("It also accepts the PSK, so neither certificate nor signature follows.")
            return "ServerHello", "4.1.3", text
        case Certificate() if sender is Role.SERVER:
            return f"{who} Certificate", "4.4.2", _SERVER_CERTIFICATE
        case Certificate():
            return f"{who} Certificate", "4.4.2", _CLIENT_CERTIFICATE if message.entries else _NO_CLIENT_CERTIFICATE
        case KeyUpdate():
            more = ["It asks the other end to do the same."] if message.update_requested else []
            return f"{who} KeyUpdate", "4.6.3", _KEY_UPDATE + more
    if kind == HandshakeType.FINISHED:
        return f"{who} Finished", "4.4.4", [*_FINISHED, _SERVER_FINISHED if sender is Role.SERVER else _CLIENT_FINISHED]
    section, text = {
        HandshakeType.ENCRYPTED_EXTENSIONS: ("4.3.1", _ENCRYPTED_EXTENSIONS),
        HandshakeType.CERTIFICATE_REQUEST: ("4.3.2", _CERTIFICATE_REQUEST),
        HandshakeType.CERTIFICATE_VERIFY: ("4.4.3", _CERTIFICATE_VERIFY),
        HandshakeType.NEW_SESSION_TICKET: ("4.6.1", _TICKET),
        HandshakeType.END_OF_EARLY_DATA: ("4.5", _END_OF_EARLY_DATA),
    }.get(kind, ("4", []))
    title = f"{who} CertificateVerify" if kind == HandshakeType.CERTIFICATE_VERIFY else message_name(kind)
    return title, section, text


def of_secrets(names: list[str]) -> Phrase:
    """The stage of the key schedule that these secrets belong to."""
    if "Handshake Secret" in names:
        return (
            "Handshake secrets: encryption starts here",
            "7.1",
            [
                "Both ends now compute the same, each for itself; nothing of it crosses the wire. The shared secret "
                "of the key exchange goes into the key schedule, and two traffic secrets come out, one for each "
                "direction. Both depend on the hash of ClientHello and ServerHello.",
                "From the next message on, records are encrypted and authenticated with keys made from them.",
            ],
        )
    if "Master Secret" in names:
        return (
            "Application secrets",
            "7.1",
            [
                "The server's Finished is right, so the client derives the secrets for application data, over the "
                "transcript up to that message. Its own remaining messages still go out under its handshake keys.",
                "The server derived the same right after it sent its Finished; it could already have sent data.",
            ],
        )
    if "resumption_master_secret" in names:
        return (
            "Resumption secret",
            "7.1",
            ["Over the whole transcript, the client's Finished included; tickets will make their PSKs from it."],
        )
    if "PSK of the ticket" in names:
        return "The ticket's secret", "4.6.1", ["Both ends compute it and keep it with the ticket."]
    if "client_early_traffic_secret" in names:
        return (
            "Early secrets",
            "7.1",
            [
                "The PSK alone gives keys for 0-RTT data. They do not depend on anything the server sends: somebody "
                "who records the client's first flight can send it again.",
            ],
        )
    if "binder_key" in names:
        return "Early secret and binder key", "7.1", ["Before the ClientHello can be finished, its binder needs a key."]
    return "The next traffic secret", "7.2", ["One step of HKDF-Expand-Label, which cannot be undone."]
