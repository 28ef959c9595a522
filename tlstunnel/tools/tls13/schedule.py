"""The key schedule: from a PSK and a shared secret to every secret of a connection (RFC 8446 section 7.1).

                    0
                    |
    PSK or 0 -> HKDF-Extract = Early Secret -----> binder key, client early traffic secret
                    |
              Derive-Secret(., "derived", "")
                    |
    (EC)DHE  -> HKDF-Extract = Handshake Secret -> client and server handshake traffic secrets
                    |
              Derive-Secret(., "derived", "")
                    |
    0        -> HKDF-Extract = Master Secret ----> application, exporter and resumption secrets

Two functions do it all. Extract mixes new key material into what there is; Derive-Secret gives out a secret bound to
a label and to the hash of all messages so far, so that ends which saw different messages get different keys. The
`Transcript` keeps those messages, and `KeySchedule` walks down the picture and tells its witness every step.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tlstunnel.tools.tls13.names import HandshakeType
from tlstunnel.tools.tls13.notes import SecretNote, Witness, nobody
from tlstunnel.tools.tls13.wire import uint, vector


def digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    """The hash of `data`."""
    context = hashes.Hash(algorithm)
    context.update(data)
    return context.finalize()


def mac(algorithm: hashes.HashAlgorithm, key: bytes, data: bytes) -> bytes:
    """HMAC (RFC 2104)."""
    context = hmac.HMAC(key, algorithm)
    context.update(data)
    return context.finalize()


def hkdf_extract(algorithm: hashes.HashAlgorithm, salt: bytes, key_material: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 section 2.2)."""
    return mac(algorithm, salt, key_material)


def hkdf_label(label: str, context: bytes, length: int) -> bytes:
    """The structure HkdfLabel (RFC 8446 section 7.1)."""
    return uint(length, 2) + vector(b"tls13 " + label.encode("ascii"), 1) + vector(context, 1)


def hkdf_expand_label(algorithm: hashes.HashAlgorithm, secret: bytes, label: str, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1)."""
    return HKDFExpand(algorithm, length, hkdf_label(label, context, length)).derive(secret)


def finished_key(algorithm: hashes.HashAlgorithm, base_secret: bytes) -> bytes:
    """The key of a Finished message's HMAC (RFC 8446 section 4.4.4)."""
    return hkdf_expand_label(algorithm, base_secret, "finished", b"", algorithm.digest_size)


class Transcript:
    """The handshake messages in the order in which they were sent (RFC 8446 section 4.4.1).

    Messages are kept whole: which hash covers them is known only with the ServerHello, and a handshake is short.
    """

    def __init__(self) -> None:
        self._messages: list[tuple[str, bytes]] = []

    def add(self, name: str, raw: bytes) -> None:
        """Append a message with its header."""
        self._messages.append((name, raw))

    @property
    def is_empty(self) -> bool:
        """Whether no message was sent or received yet."""
        return not self._messages

    def hash(self, algorithm: hashes.HashAlgorithm, more: bytes = b"") -> bytes:
        """The hash of everything so far, and of `more` bytes that are not part of it yet."""
        return digest(algorithm, b"".join(raw for _, raw in self._messages) + more)

    def hash_without_tail(self, algorithm: hashes.HashAlgorithm, tail: int) -> bytes:
        """The hash of everything but the last `tail` bytes: what a PSK binder covers (section 4.2.11.2)."""
        return digest(algorithm, b"".join(raw for _, raw in self._messages)[:-tail])

    @property
    def span(self) -> str:
        """What it covers, as the RFC writes it: `ClientHello...ServerHello`."""
        names = [name for name, _ in self._messages]
        return names[0] if len(names) == 1 else f"{names[0]}...{names[-1]}"

    def fold(self, algorithm: hashes.HashAlgorithm) -> None:
        """Put the first ClientHello's hash in its place, as a HelloRetryRequest demands.

        So a server may forget the first ClientHello and still compute the transcript from a cookie.
        """
        name, raw = self._messages[0]
        hashed = digest(algorithm, raw)
        folded = uint(HandshakeType.MESSAGE_HASH, 1) + vector(hashed, 3)
        self._messages[0] = (f"message_hash({name}1)", folded)


class KeySchedule:
    """Walks from the early secret to the master secret. Each secret is an attribute once it is known."""

    def __init__(self, algorithm: hashes.HashAlgorithm, witness: Witness = nobody) -> None:
        self.algorithm = algorithm
        self._witness = witness
        self._zeros = bytes(algorithm.digest_size)
        self._current = b""
        self._name = ""

    def enter_early(self, psk: bytes | None) -> None:
        """Start with a PSK, or with zeros where there is none."""
        name = "zeros" if psk is None else "PSK"
        self._extract("Early Secret", b"", "0", psk or self._zeros, name)

    def enter_handshake(self, shared_secret: bytes) -> None:
        """Mix the result of the key exchange in."""
        self._extract("Handshake Secret", *self._derived(), shared_secret, "(EC)DHE shared secret")

    def enter_master(self) -> None:
        """The last stage, to which nothing new is added."""
        self._extract("Master Secret", *self._derived(), self._zeros, "zeros")

    def derive(self, name: str, label: str, transcript_hash: bytes, span: str) -> bytes:
        """Derive-Secret from the current stage; `span` is what the hash covers."""
        value = self._expand(self._current, label, transcript_hash)
        self._tell(
            name,
            f'Derive-Secret({self._name}, "{label}", {span})',
            (("secret", self._current), (f"Transcript-Hash({span})", transcript_hash)),
            value,
        )
        return value

    def resumption_psk(self, resumption_secret: bytes, nonce: bytes) -> bytes:
        """The PSK of a ticket (RFC 8446 section 4.6.1)."""
        value = self._expand(resumption_secret, "resumption", nonce)
        self._tell(
            "PSK of the ticket",
            'HKDF-Expand-Label(resumption_master_secret, "resumption", ticket_nonce, Hash.length)',
            (("secret", resumption_secret), ("ticket_nonce", nonce)),
            value,
        )
        return value

    def next_traffic_secret(self, name: str, secret: bytes) -> tuple[str, bytes]:
        """The name and value of the traffic secret after a KeyUpdate (RFC 8446 section 7.2)."""
        stem, _, number = name.rpartition("_")
        following = f"{stem}_{int(number) + 1}"
        value = self._expand(secret, "traffic upd", b"")
        formula = f'HKDF-Expand-Label({name}, "traffic upd", "", Hash.length)'
        self._tell(following, formula, (("secret", secret),), value)
        return following, value

    def _derived(self) -> tuple[bytes, str]:
        empty = digest(self.algorithm, b"")
        value = self._expand(self._current, "derived", empty)
        name = f"derived from {self._name}"
        inputs = (("secret", self._current), ('Transcript-Hash("")', empty))
        self._tell(name, f'Derive-Secret({self._name}, "derived", "")', inputs, value)
        return value, name

    def _extract(self, name: str, salt: bytes, salt_name: str, key_material: bytes, material_name: str) -> None:
        self._current = hkdf_extract(self.algorithm, salt or self._zeros, key_material)
        self._name = name
        inputs = ((f"salt ({salt_name})", salt or self._zeros), (f"IKM ({material_name})", key_material))
        self._tell(name, f"HKDF-Extract(salt = {salt_name}, IKM = {material_name})", inputs, self._current)

    def _expand(self, secret: bytes, label: str, context: bytes) -> bytes:
        return hkdf_expand_label(self.algorithm, secret, label, context, self.algorithm.digest_size)

    def _tell(self, name: str, formula: str, inputs: tuple[tuple[str, bytes], ...], value: bytes) -> None:
        self._witness(SecretNote(name, formula, inputs, value))
