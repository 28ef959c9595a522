/*
 * A TLS 1.3 handshake made as cheap as it can be for the client, so that one CPU of clients outruns one CPU of server.
 *
 * libssl's client costs more per handshake than the servers to be measured do (a fresh key pair, the server's chain
 * parsed, its signature verified, a great deal of administration), and a generator that is slower than the proxy
 * measures a proxy that sleeps. This client does only what the server can see: its ClientHello is libssl's own, byte
 * for byte, but for random, key share and ticket; it sends what libssl sends, in the same number of writes. What the
 * server cannot see is left out: one key pair serves every connection, and the server is believed (its records decrypt
 * under the negotiated keys, which is all that is checked). Never take it for a client.
 *
 * No sockets here: whoever owns the connection moves `out` and `in`.
 */
#ifndef SHAKE_H
#define SHAKE_H

#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

enum { SHAKE_HASH = 48, SHAKE_KEY = 32, SHAKE_IV = 12, SHAKE_HELLO = 4096, SHAKE_TICKET = 2048 };

union shake_hash {
    SHA256_CTX sha256;
    SHA512_CTX sha384;
};

struct shake_keys {
    unsigned char key[SHAKE_KEY], iv[SHAKE_IV];
    uint64_t count;
};

struct shake {
    unsigned char out[SHAKE_HELLO], in[20 * 1024];
    size_t out_size, out_sent, in_size;
    size_t out_break;                   /* libssl would make a write of its own of what comes before */
    enum { AWAIT_HELLO, AWAIT_FINISHED, AWAIT_ECHO, SHAKEN } stage;
    int resumed;
    union shake_hash transcript;
    unsigned char handshake_secret[SHAKE_HASH], client_secret[SHAKE_HASH], master[SHAKE_HASH];
    unsigned char resumption[SHAKE_HASH];
    struct shake_keys server, client;
    unsigned char message_head[4];      /* of the handshake message that is passing by */
    size_t message_have, message_left;
    /* The newest ticket; outlives the connection. */
    unsigned char ticket[SHAKE_TICKET], psk[SHAKE_HASH];
    size_t ticket_size;
    uint32_t age_add;
    uint64_t ticket_ms;
};

/* Prepares the process; 0 when this client does not speak the suite or group, and libssl has to do it. */
int shake_setup(SSL_CTX *context, const char *suite, const char *group);

/* Starts a handshake, with the ticket of the last one when `resume` and there is one: `out` holds the ClientHello. */
int shake_begin(struct shake *s, int resume);

/* Takes in the records that are complete in `in`: 1 when the echoed byte has come, 0 when more is needed, -1 when it
 * failed. `out` may hold something to send either way. */
int shake_feed(struct shake *s);

#endif
