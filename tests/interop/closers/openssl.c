#include "closer.h"

#include <openssl/ssl.h>

static SSL *ssl;

void tls_begin(int fd, int is_server, const char *certificate, const char *key)
{
    SSL_CTX *context = SSL_CTX_new(TLS_method());

    if (is_server && (SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
                      SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1))
        fail("certificate");
    ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if ((is_server ? SSL_accept(ssl) : SSL_connect(ssl)) != 1)
        fail("handshake");
}

void tls_write(const unsigned char *data, int size)
{
    if (SSL_write(ssl, data, size) != size)
        fail("SSL_write");
}

void tls_goodbye(void)
{
    SSL_shutdown(ssl);
}
