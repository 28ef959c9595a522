#include "closer.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <stddef.h>

#if MBEDTLS_VERSION_MAJOR < 3
#define parse_key(secret, file, random) mbedtls_pk_parse_keyfile(secret, file, NULL)
#define psa_crypto_init() (void)0
#else
#include <psa/crypto.h>
#define parse_key(secret, file, random) mbedtls_pk_parse_keyfile(secret, file, NULL, mbedtls_ctr_drbg_random, random)
#endif

static mbedtls_ssl_context ssl;
static mbedtls_net_context net;

void tls_begin(int fd, int is_server, const char *certificate, const char *key)
{
    static mbedtls_ssl_config config;
    static mbedtls_entropy_context entropy;
    static mbedtls_ctr_drbg_context random;
    static mbedtls_x509_crt chain;
    static mbedtls_pk_context secret;

    psa_crypto_init();
    mbedtls_ssl_init(&ssl);
    mbedtls_ssl_config_init(&config);
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random);
    mbedtls_x509_crt_init(&chain);
    mbedtls_pk_init(&secret);
    mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0);
    mbedtls_ssl_config_defaults(&config, is_server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random);
    if (is_server) {
        if (mbedtls_x509_crt_parse_file(&chain, certificate) || parse_key(&secret, key, &random))
            fail("certificate");
        mbedtls_ssl_conf_own_cert(&config, &chain, &secret);
    }
    mbedtls_ssl_setup(&ssl, &config);
    net.fd = fd;
    mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, mbedtls_net_recv, NULL);
    if (mbedtls_ssl_handshake(&ssl))
        fail("handshake");
}

void tls_write(const unsigned char *data, int size)
{
    while (size > 0) {
        int sent = mbedtls_ssl_write(&ssl, data, (size_t)size);
        if (sent < 0)
            fail("mbedtls_ssl_write");
        data += sent;
        size -= sent;
    }
}

void tls_goodbye(void)
{
    mbedtls_ssl_close_notify(&ssl);
}
