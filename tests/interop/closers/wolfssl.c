#include "closer.h"

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

static WOLFSSL *ssl;

void tls_begin(int fd, int is_server, const char *certificate, const char *key)
{
    WOLFSSL_CTX *context;

    wolfSSL_Init();
    context = wolfSSL_CTX_new(is_server ? wolfTLS_server_method() : wolfTLS_client_method());
    if (is_server && (wolfSSL_CTX_use_certificate_chain_file(context, certificate) != SSL_SUCCESS ||
                      wolfSSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != SSL_SUCCESS))
        fail("certificate");
    wolfSSL_CTX_set_verify(context, SSL_VERIFY_NONE, 0);
    ssl = wolfSSL_new(context);
    wolfSSL_set_fd(ssl, fd);
    if ((is_server ? wolfSSL_accept(ssl) : wolfSSL_connect(ssl)) != SSL_SUCCESS)
        fail("handshake");
}

void tls_write(const unsigned char *data, int size)
{
    if (wolfSSL_write(ssl, data, size) != size)
        fail("wolfSSL_write");
}

void tls_goodbye(void)
{
    wolfSSL_shutdown(ssl);
}
