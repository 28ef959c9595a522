"""From OpenSSL's words to close reasons: the tables, and what OpenSSL really says."""

from __future__ import annotations

import pytest

from tlstunnel._openssl.binding import ffi, lib
from tlstunnel.outcome import CloseReason, Stage
from tlstunnel.tls import reasons, remedies
from tlstunnel.tls.reasons import alert_name, classify


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tlsv1 alert unknown ca", "unknown_ca"),
        ("ssl/tls alert bad certificate", "bad_certificate"),
        ("tlsv13 alert certificate required", "certificate_required"),
        ("sslv3 alert handshake failure", "handshake_failure"),
        ("tls alert handshake failure", "handshake_failure"),
        # OpenSSL leaves the word out of the alerts that came with extensions, and spells one in its own way.
        ("tlsv1 unrecognized name", "unrecognized_name"),
        ("tlsv1 unsupported extension", "unsupported_extension"),
        ("tlsv1 bad certificate status response", "bad_certificate_status_response"),
        ("tlsv1 alert user cancelled", "user_canceled"),
        ("tlsv1 alert that nobody knows yet", "that_nobody_knows_yet"),
        ("tlsv1 nonsense", None),
        ("wrong version number", None),
        ("alert", None),
        ("", None),
    ],
)
def test_alerts_are_known_by_their_names_in_the_rfc(text: str, name: str | None) -> None:
    assert alert_name(text) == name


def test_a_verdict_on_a_certificate_comes_before_everything_else() -> None:
    # The reason's own text says it all.
    assert classify(["certificate verify failed"], 10) == (CloseReason.EXPIRED_CERTIFICATE, "")
    reason, detail = classify(["Certificate Verify Failed", "something else"], 20)
    assert reason is CloseReason.UNKNOWN_CA
    assert detail == "its issuer is not known here"


def test_a_verdict_that_we_have_no_word_for_is_still_a_bad_certificate_with_its_number() -> None:
    reason, detail = classify(["certificate verify failed"], 999)
    assert reason is CloseReason.BAD_CERTIFICATE
    assert "999" in detail


def test_every_verdict_that_openssl_knows_has_words() -> None:
    for code in range(1, 256):
        text = ffi.string(lib.X509_verify_cert_error_string(code)).decode()
        if "error number" not in text and "unknown certificate verification error" not in text:
            assert code in reasons.VERDICT_WORDS, f"{code}: {text}"
            reason, detail = classify(["certificate verify failed"], code)
            assert detail or reason is not CloseReason.BAD_CERTIFICATE, f"{code}: {text}"


def test_the_mark_of_a_downgrade_and_a_fallback_are_told_apart() -> None:
    """OpenSSL has one word for a server's mark (RFC 8446 section 4.1.3) and a client's signal (RFC 7507)."""
    reason, detail = classify(["inappropriate fallback"], 0, remedies.KEYS)
    assert (reason, "mark of a downgrade" in detail) == (CloseReason.PROTOCOL_ERROR, True)
    reason, detail = classify(["inappropriate fallback"], 0)
    assert (reason, "after a failure" in detail) == (CloseReason.PROTOCOL_ERROR, True)


def test_a_verdict_counts_only_where_verification_failed() -> None:
    assert classify(["no shared cipher"], 10)[0] is CloseReason.NO_SHARED_CIPHER


def test_the_first_cause_that_has_a_name_wins() -> None:
    assert classify(["internal nonsense", "unsupported protocol", "no shared cipher"], 0)[0] is (
        CloseReason.NO_SHARED_VERSION
    )


def test_what_nobody_knows_is_a_protocol_error_that_says_what_openssl_said() -> None:
    assert classify(["length mismatch", "bad packet"], 0) == (CloseReason.PROTOCOL_ERROR, "length mismatch, bad packet")
    assert classify([], 0) == (CloseReason.PROTOCOL_ERROR, "no reason given")


@pytest.mark.parametrize("reason", list(dict.fromkeys((*reasons._BY_REASON.values(), *reasons._BY_VERDICT.values()))))
def test_every_entry_of_the_tables_is_a_reason_of_the_handshake(reason: CloseReason) -> None:
    assert reason.stage is Stage.HANDSHAKE


def test_every_word_of_a_verdict_belongs_to_a_verdict_with_a_reason_or_is_a_bad_certificate() -> None:
    for code in reasons.VERDICT_WORDS:
        classified, detail = classify(["certificate verify failed"], code)
        assert classified.stage is Stage.HANDSHAKE
        assert reasons.VERDICT_WORDS[code] in detail
