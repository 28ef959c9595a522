"""TLS for the admin endpoint, with the standard library's `ssl`: a few scrapes a minute need no faster one."""

from __future__ import annotations

import ssl

from tlstunnel.config.model import Admin
from tlstunnel.errors import StartupError, UsageError, words_of
from tlstunnel.reading import UnfitFileError, require_file


def tls_context(settings: Admin) -> ssl.SSLContext | None:
    """The context the endpoint is served with; None for plain HTTP.

    Called by the supervisor, which may read the key, before the admin process drops its privileges; and again at a
    reload, whose new admin process gets the new one. With a client CA nobody without a certificate of it is served.

    Raises:
        StartupError: a file cannot be read or used; the message names it.
    """
    if settings.certificate is None:
        return None
    _require_files(settings)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_refuse_to_ask)
    except (OSError, ssl.SSLError) as exc:
        raise StartupError(
            f"admin.certificate: {settings.certificate}: {_said(exc)}; it must hold a PEM certificate, and admin.key "
            "(or itself) its unencrypted key"
        ) from exc
    if settings.client_ca is not None:
        from tlstunnel.x509.trust import load_ca  # noqa: PLC0415 - cryptography, which few admin processes need

        try:
            context.load_verify_locations(cadata=b"".join(load_ca(settings.client_ca).certificates_der))
        except UsageError as exc:
            raise StartupError(f"admin.client_ca: {exc}") from exc
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _require_files(settings: Admin) -> None:
    """OpenSSL opens these by their names, and would wait for the writer of a pipe."""
    for key in ("certificate", "key", "client_ca"):
        path = getattr(settings, key)
        try:
            if path is not None and not (key == "client_ca" and path.is_dir()):
                require_file(path)
        except UnfitFileError as exc:
            raise StartupError(f"admin.{key}: {path}: {exc}") from exc
        except OSError:
            continue  # said when it is read, in words that fit


def _refuse_to_ask() -> bytes:
    """Without this OpenSSL would ask for a passphrase on the terminal."""
    raise OSError(0, "the key is encrypted")


def _said(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "not usable").replace("_", " ").lower()
    return words_of(exc)
