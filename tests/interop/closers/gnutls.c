#include "closer.h"

#include <gnutls/gnutls.h>

static gnutls_session_t session;

void tls_begin(int fd, int is_server, const char *certificate, const char *key)
{
    gnutls_certificate_credentials_t credentials;
    int result;

    gnutls_certificate_allocate_credentials(&credentials);
    if (is_server && gnutls_certificate_set_x509_key_file(credentials, certificate, key, GNUTLS_X509_FMT_PEM) < 0)
        fail("certificate");
    gnutls_init(&session, is_server ? GNUTLS_SERVER : GNUTLS_CLIENT);
    gnutls_set_default_priority(session);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_transport_set_int(session, fd);
    do {
        result = gnutls_handshake(session);
    } while (result < 0 && !gnutls_error_is_fatal(result));
    if (result < 0)
        fail(gnutls_strerror(result));
}

void tls_write(const unsigned char *data, int size)
{
    while (size > 0) {
        ssize_t sent = gnutls_record_send(session, data, (size_t)size);
        if (sent < 0)
            fail(gnutls_strerror((int)sent));
        data += sent;
        size -= (int)sent;
    }
}

void tls_goodbye(void)
{
    gnutls_bye(session, GNUTLS_SHUT_WR);
}
