/* See shake.h for what this is, and for what it is not. */
#define OPENSSL_SUPPRESS_DEPRECATED     /* the low-level hashes cost a tenth of the fetched ones */
#include "hkdf.h"
#include "shake.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>
#include <time.h>

enum { TAG = 16, CCS = 20, ALERT = 21, HANDSHAKE = 22, DATA = 23 };

static unsigned char template[2048];    /* a ClientHello of libssl's, as a handshake message */
static size_t template_size, share_at;
static unsigned char empty_hash[SHAKE_HASH], zeros[SHAKE_HASH], plain_derived[SHAKE_HASH];
static unsigned char early_plain[SHAKE_HASH];
static uint16_t suite_code;
static EVP_PKEY *own_key;
static unsigned char own_share[32];
static EVP_PKEY_CTX *exchange;
static EVP_CIPHER_CTX *sealer, *opener;

/* ---- records ---- */

static void nonce(struct shake_keys *keys, unsigned char *into)
{
    memcpy(into, keys->iv, SHAKE_IV);
    for (int i = 0; i < 8; i++)
        into[SHAKE_IV - 1 - i] ^= (unsigned char)(keys->count >> (8 * i));
    keys->count++;
}

static void put_sealed(struct shake *s, int type, const unsigned char *data, size_t size)
{
    unsigned char *record = s->out + s->out_size, iv[SHAKE_IV], inner = (unsigned char)type;
    size_t body = size + 1 + TAG;
    int n;
    memcpy(record, (unsigned char[]){DATA, 3, 3, (unsigned char)(body >> 8), (unsigned char)body}, 5);
    nonce(&s->client, iv);
    EVP_EncryptInit_ex(sealer, NULL, NULL, s->client.key, iv);
    EVP_EncryptUpdate(sealer, NULL, &n, record, 5);
    EVP_EncryptUpdate(sealer, record + 5, &n, data, (int)size);
    EVP_EncryptUpdate(sealer, record + 5 + size, &n, &inner, 1);
    EVP_EncryptFinal_ex(sealer, record + 5 + size + 1, &n);
    EVP_CIPHER_CTX_ctrl(sealer, EVP_CTRL_AEAD_GET_TAG, TAG, record + 5 + size + 1);
    s->out_size += 5 + body;
}

/* Decrypts a record in place: its inner type, or -1; *size becomes that of the data. */
static int open_record(struct shake *s, unsigned char *record, size_t *size)
{
    unsigned char iv[SHAKE_IV], *data = record + 5;
    int n;
    if (*size <= TAG)
        return -1;
    nonce(&s->server, iv);
    *size -= TAG;
    EVP_DecryptInit_ex(opener, NULL, NULL, s->server.key, iv);
    EVP_CIPHER_CTX_ctrl(opener, EVP_CTRL_AEAD_SET_TAG, TAG, data + *size);
    EVP_DecryptUpdate(opener, NULL, &n, record, 5);
    EVP_DecryptUpdate(opener, data, &n, data, (int)*size);
    if (EVP_DecryptFinal_ex(opener, data + n, &n) <= 0)
        return -1;
    while (*size > 0 && data[*size - 1] == 0)
        --*size;
    return *size > 0 ? data[--*size] : -1;
}

/* ---- the handshake ---- */

static unsigned get16(const unsigned char *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void put16(unsigned char *p, size_t value)
{
    p[0] = (unsigned char)(value >> 8);
    p[1] = (unsigned char)value;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Where the extensions of a ClientHello's handshake message begin (their length field). */
static size_t extensions_at(const unsigned char *hello)
{
    size_t at = 4 + 2 + 32;
    at += 1 + hello[at];
    at += 2 + get16(hello + at);
    return at + 1 + hello[at];
}

int shake_setup(SSL_CTX *context, const char *suite, const char *group)
{
    const EVP_CIPHER *cipher;
    if (strcmp(suite, "TLS_AES_256_GCM_SHA384") == 0)
        cipher = EVP_aes_256_gcm(), is_384 = 1, suite_code = 0x1302;
    else if (strcmp(suite, "TLS_AES_128_GCM_SHA256") == 0)
        cipher = EVP_aes_128_gcm(), suite_code = 0x1301;
    else
        return 0;
    if (strcmp(group, "X25519") != 0)
        return 0;
    hash_size = is_384 ? 48 : 32;
    key_size = (size_t)EVP_CIPHER_get_key_length(cipher);

    /* The template: what libssl sends first, caught in memory. */
    SSL *ssl = SSL_new(context);
    BIO *caught = BIO_new(BIO_s_mem());
    unsigned char record[sizeof template + 5];
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), caught);
    SSL_set_connect_state(ssl);
    SSL_do_handshake(ssl);
    int got = BIO_read(caught, record, sizeof record);
    SSL_free(ssl);
    if (got < 5 + 4 || record[0] != HANDSHAKE)
        return 0;
    template_size = (size_t)got - 5;
    memcpy(template, record + 5, template_size);
    size_t at = extensions_at(template) + 2;
    for (; at + 4 <= template_size && share_at == 0; at += 4 + get16(template + at + 2))
        if (get16(template + at) == 51 && get16(template + at + 6) == 29)
            share_at = at + 10;
    if (share_at == 0)
        return 0;

    own_key = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    size_t share_size = sizeof own_share;
    EVP_PKEY_get_raw_public_key(own_key, own_share, &share_size);
    memcpy(template + share_at, own_share, sizeof own_share);
    exchange = EVP_PKEY_CTX_new(own_key, NULL);
    EVP_PKEY_derive_init(exchange);
    sealer = EVP_CIPHER_CTX_new();
    opener = EVP_CIPHER_CTX_new();
    EVP_EncryptInit_ex(sealer, cipher, NULL, NULL, NULL);
    EVP_DecryptInit_ex(opener, cipher, NULL, NULL, NULL);

    union shake_hash h;
    hash_start(&h);
    hash_end(h, empty_hash);
    hmac(zeros, zeros, hash_size, early_plain);
    derive(early_plain, "derived", empty_hash, plain_derived);
    return 1;
}

int shake_begin(struct shake *s, int resume)
{
    unsigned char *hello = s->out + 5;
    size_t size = template_size;
    s->resumed = resume && s->ticket_size > 0;
    s->in_size = s->out_sent = s->message_have = s->message_left = 0;
    s->out_break = 0;
    s->stage = AWAIT_HELLO;
    memcpy(hello, template, size);
    RAND_bytes(hello + 6, 32);
    RAND_bytes(hello + 39, hello[38]);  /* the legacy session id, as libssl fills it */
    hash_start(&s->transcript);
    if (s->resumed) {
        /* pre_shared_key stands last; its binder authenticates everything before the list of binders. */
        unsigned char *p = hello + size, early[SHAKE_HASH], secret[SHAKE_HASH], digest[SHAKE_HASH];
        size_t identities = 2 + s->ticket_size + 4, extension = 2 + identities + 2 + 1 + hash_size;
        uint32_t age = (uint32_t)(now_ms() - s->ticket_ms) + s->age_add;
        if (5 + size + 4 + extension > sizeof s->out)
            return -1;
        put16(p, 41);
        put16(p + 2, extension);
        put16(p + 4, identities);
        put16(p + 6, s->ticket_size);
        memcpy(p + 8, s->ticket, s->ticket_size);
        p += 8 + s->ticket_size;
        put16(p, age >> 16);
        put16(p + 2, age & 0xffff);
        put16(p + 4, 1 + hash_size);
        p[6] = (unsigned char)hash_size;
        size_t at = extensions_at(hello);
        put16(hello + at, get16(hello + at) + 4 + extension);
        size += 4 + extension;
        put16(hello + 2, size - 4);
        hash_add(&s->transcript, hello, (size_t)(p + 4 - hello));
        hash_end(s->transcript, digest);
        hmac(zeros, s->psk, hash_size, early);
        derive(early, "res binder", empty_hash, secret);
        expand(secret, "finished", NULL, 0, secret, hash_size);
        hmac(secret, digest, hash_size, p + 7);
        hash_start(&s->transcript);
    }
    hash_add(&s->transcript, hello, size);
    memcpy(s->out, (unsigned char[]){HANDSHAKE, 3, 1, (unsigned char)(size >> 8), (unsigned char)size}, 5);
    s->out_size = 5 + size;
    return 0;
}

static int take_server_hello(struct shake *s, const unsigned char *message, size_t size)
{
    unsigned char shared[32], digest[SHAKE_HASH], early[SHAKE_HASH], derived[SHAKE_HASH], secret[SHAKE_HASH];
    const unsigned char *peer_share = NULL;
    size_t at = 4 + 2 + 32, shared_size = sizeof shared;
    int resumed = 0;
    if (size < 80 || message[0] != 2)
        return -1;
    at += 1 + message[at];
    if (get16(message + at) != suite_code)
        return -1;
    for (at += 2 + 1 + 2; at + 4 <= size; at += 4 + get16(message + at + 2)) {
        if (get16(message + at) == 51 && get16(message + at + 2) == 36)
            peer_share = message + at + 8;
        resumed |= get16(message + at) == 41;
    }
    if (peer_share == NULL)
        return -1;  /* among others: a HelloRetryRequest */
    s->resumed = resumed;
    EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, peer_share, 32);
    int good = peer != NULL && EVP_PKEY_derive_set_peer(exchange, peer) > 0
               && EVP_PKEY_derive(exchange, shared, &shared_size) > 0;
    EVP_PKEY_free(peer);
    if (!good)
        return -1;

    hash_add(&s->transcript, message, size);
    hash_end(s->transcript, digest);
    memcpy(derived, plain_derived, hash_size);
    if (resumed) {
        hmac(zeros, s->psk, hash_size, early);
        derive(early, "derived", empty_hash, derived);
    }
    hmac(derived, shared, sizeof shared, s->handshake_secret);
    derive(s->handshake_secret, "c hs traffic", digest, s->client_secret);
    derive(s->handshake_secret, "s hs traffic", digest, secret);
    traffic_keys(s->client_secret, &s->client);
    traffic_keys(secret, &s->server);
    derive(s->handshake_secret, "derived", empty_hash, derived);
    hmac(derived, zeros, hash_size, s->master);
    s->stage = AWAIT_FINISHED;
    return 0;
}

/* The server's Finished is in the transcript: ours goes out, and the byte to be echoed after it. */
static void answer_finished(struct shake *s)
{
    unsigned char digest[SHAKE_HASH], key[SHAKE_HASH], finished[4 + SHAKE_HASH] = {20, 0, 0};
    unsigned char client[SHAKE_HASH], server[SHAKE_HASH];
    hash_end(s->transcript, digest);
    derive(s->master, "c ap traffic", digest, client);
    derive(s->master, "s ap traffic", digest, server);
    expand(s->client_secret, "finished", NULL, 0, key, hash_size);
    finished[3] = (unsigned char)hash_size;
    hmac(key, digest, hash_size, finished + 4);
    s->out_size = s->out_sent = 0;
    memcpy(s->out, (unsigned char[]){CCS, 3, 3, 0, 1, 1}, 6);
    s->out_size = 6;
    put_sealed(s, HANDSHAKE, finished, 4 + hash_size);
    s->out_break = s->out_size;
    hash_add(&s->transcript, finished, 4 + hash_size);
    hash_end(s->transcript, digest);
    derive(s->master, "res master", digest, s->resumption);
    traffic_keys(client, &s->client);
    traffic_keys(server, &s->server);
    put_sealed(s, DATA, (const unsigned char *)"e", 1);
    s->stage = AWAIT_ECHO;
}

/* Follows the server's flight message by message; its Finished ends it. */
static void take_flight(struct shake *s, const unsigned char *data, size_t size)
{
    hash_add(&s->transcript, data, size);
    while (size > 0) {
        if (s->message_left == 0) {
            s->message_head[s->message_have++] = *data++;
            size--;
            if (s->message_have < 4)
                continue;
            s->message_have = 0;
            s->message_left = (size_t)s->message_head[1] << 16 | get16(s->message_head + 2);
        }
        size_t taken = size < s->message_left ? size : s->message_left;
        data += taken;
        size -= taken;
        s->message_left -= taken;
        if (s->message_left == 0 && s->message_head[0] == 20) {
            answer_finished(s);
            return;
        }
    }
}

static void keep_ticket(struct shake *s, const unsigned char *message, size_t size)
{
    if (size < 13 || message[0] != 4)
        return;
    const unsigned char *nonce_at = message + 13, *ticket = nonce_at + message[12] + 2;
    size_t ticket_size = get16(ticket - 2);
    if (ticket_size > SHAKE_TICKET || ticket + ticket_size > message + size)
        return;
    s->age_add = (uint32_t)get16(message + 8) << 16 | get16(message + 10);
    s->ticket_ms = now_ms();
    s->ticket_size = ticket_size;
    memcpy(s->ticket, ticket, ticket_size);
    expand(s->resumption, "resumption", nonce_at, message[12], s->psk, hash_size);
}

int shake_feed(struct shake *s)
{
    size_t at = 0;
    int result = 0;
    while (result == 0 && s->in_size - at >= 5) {
        unsigned char *record = s->in + at;
        size_t size = get16(record + 3);
        if (5 + size > sizeof s->in)
            return -1;
        if (s->in_size - at < 5 + size)
            break;
        at += 5 + size;
        if (record[0] == CCS)
            continue;
        if (s->stage == AWAIT_HELLO) {
            result = record[0] == HANDSHAKE ? take_server_hello(s, record + 5, size) : -1;
            continue;
        }
        int type = open_record(s, record, &size);
        if (type == HANDSHAKE && s->stage == AWAIT_FINISHED) {
            take_flight(s, record + 5, size);
        } else if (type == HANDSHAKE) {
            keep_ticket(s, record + 5, size);
        } else if (type == DATA && s->stage == AWAIT_ECHO) {
            s->out_size = s->out_sent = s->out_break = 0;
            put_sealed(s, ALERT, (const unsigned char[]){1, 0}, 2);
            s->stage = SHAKEN;
            result = 1;
        } else {
            result = -1;
        }
    }
    memmove(s->in, s->in + at, s->in_size - at);
    s->in_size -= at;
    return result;
}
