/*
 * Hash, HMAC and HKDF (RFC 5869, RFC 8446 section 7.1) on OpenSSL's low-level hashes: a third of a microsecond a block
 * and no memory allocated, where the fetched ones cost more for administration than for hashing.
 */
#include "shake.h"

#include <string.h>

static int is_384;
static size_t hash_size, key_size;

static void hash_start(union shake_hash *h)
{
    if (is_384)
        SHA384_Init(&h->sha384);
    else
        SHA256_Init(&h->sha256);
}

static void hash_add(union shake_hash *h, const void *data, size_t size)
{
    if (is_384)
        SHA384_Update(&h->sha384, data, size);
    else
        SHA256_Update(&h->sha256, data, size);
}

static void hash_end(union shake_hash h, unsigned char *digest)
{
    if (is_384)
        SHA384_Final(digest, &h.sha384);
    else
        SHA256_Final(digest, &h.sha256);
}

static void hmac(const unsigned char *key, const void *data, size_t size, unsigned char *mac)
{
    union shake_hash h;
    unsigned char pad[128], inner[SHAKE_HASH];
    size_t block = is_384 ? 128 : 64;
    for (size_t i = 0; i < block; i++)
        pad[i] = (i < hash_size ? key[i] : 0) ^ 0x36;
    hash_start(&h);
    hash_add(&h, pad, block);
    hash_add(&h, data, size);
    hash_end(h, inner);
    for (size_t i = 0; i < block; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    hash_start(&h);
    hash_add(&h, pad, block);
    hash_add(&h, inner, hash_size);
    hash_end(h, mac);
}

/* HKDF-Expand-Label for outputs of one block at most, which all of TLS 1.3's are. */
static void expand(const unsigned char *secret, const char *label, const unsigned char *about, size_t about_size,
                   unsigned char *into, size_t size)
{
    unsigned char info[2 + 1 + 32 + 1 + 255 + 1], block[SHAKE_HASH];
    size_t n = 0, label_size = strlen(label);
    info[n++] = 0;
    info[n++] = (unsigned char)size;
    info[n++] = (unsigned char)(6 + label_size);
    memcpy(info + n, "tls13 ", 6);
    memcpy(info + n + 6, label, label_size);
    n += 6 + label_size;
    info[n++] = (unsigned char)about_size;
    memcpy(info + n, about, about_size);
    n += about_size;
    info[n++] = 1;
    hmac(secret, info, n, block);
    memcpy(into, block, size);
}

static void derive(const unsigned char *secret, const char *label, const unsigned char *hash, unsigned char *into)
{
    expand(secret, label, hash, hash_size, into, hash_size);
}

static void traffic_keys(const unsigned char *secret, struct shake_keys *keys)
{
    expand(secret, "key", NULL, 0, keys->key, key_size);
    expand(secret, "iv", NULL, 0, keys->iv, SHAKE_IV);
    keys->count = 0;
}
