/* See conn.h. */
#define _GNU_SOURCE
#include "conn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RECORD = 16384, OVERHEAD = 17 };

struct sockaddr_in target = {.sin_family = AF_INET};
SSL_CTX *context;
int poller;
uint64_t received;
static int quick_possible;
static unsigned char filler[256 * 1024], scratch[64 * 1024];

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int keep_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct conn *c = SSL_get_app_data(ssl);
    SSL_SESSION_free(c->session);
    c->session = session;
    return 1;
}

static int trust_anyone(X509_STORE_CTX *store, void *unused)
{
    (void)store, (void)unused;
    return 1;
}

int conn_setup(const char *suite, const char *group)
{
    memset(filler, 'e', sizeof filler);
    if (suite == NULL)
        return 1;
    context = SSL_CTX_new(TLS_client_method());
    if (!SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) || !SSL_CTX_set_ciphersuites(context, suite)
        || !SSL_CTX_set1_groups_list(context, group))
        return 0;
    SSL_CTX_set_cert_verify_callback(context, trust_anyone, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_ticket);
    quick_possible = shake_setup(context, suite, group);
    return 1;
}

void conn_shut(struct conn *c)
{
    if (c->phase == CLOSED)
        return;
    if (c->ssl != NULL) {
        if (c->phase == OPEN && c->want == 0)
            SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        c->ssl = NULL;
    }
    if (c->is_quick && c->quick->stage == SHAKEN)
        send(c->fd, c->quick->out, c->quick->out_size, MSG_NOSIGNAL);  /* close_notify */
    close(c->fd);
    free(c->sealed);
    c->sealed = NULL;
    c->sealed_size = c->sealed_sent = c->sealed_step = 0;
    c->phase = CLOSED;
    ERR_clear_error();
}

void conn_begin(struct conn *c, char letter, uint64_t number, uint64_t fill, uint64_t want)
{
    c->head_left = letter ? 9 : 0;
    c->head[0] = (unsigned char)letter;
    for (int i = 8; i >= 1; i--, number >>= 8)
        c->head[i] = (unsigned char)number;
    c->fill_left = fill;
    c->want = want;
    c->started = now();
}

int conn_dial(struct conn *c, int quick, int resume)
{
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->phase = CONNECTING;
    c->counting = c->record_have = 0;
    c->body_left = 0;
    c->is_quick = quick && quick_possible;
    if (c->is_quick) {
        if (c->quick == NULL && (c->quick = calloc(1, sizeof *c->quick)) == NULL)
            return -1;
        shake_begin(c->quick, resume);
    } else if (context != NULL) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_app_data(c->ssl, c);
        SSL_set_connect_state(c->ssl);
        if (resume && c->session != NULL)
            SSL_set_session(c->ssl, c->session);
    }
    conn_begin(c, 0, 0, 1, 1);
    struct epoll_event want = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (connect(c->fd, (struct sockaddr *)&target, sizeof target) < 0 && errno != EINPROGRESS)
        return -1;
    return epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &want);
}

/* Results of everything below: more than 0 is progress, 0 would block, -1 is the end of the connection. */
static int verdict(struct conn *c, int result)
{
    if (result > 0)
        return result;
    int why = SSL_get_error(c->ssl, result);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static int write_raw(struct conn *c, const unsigned char *data, size_t size)
{
    ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
    return sent >= 0 ? (int)sent : errno == EAGAIN ? 0 : -1;
}

static int write_some(struct conn *c, const unsigned char *data, uint64_t size)
{
    size_t most = c->ssl ? RECORD : sizeof filler;
    size = size < most ? size : most;
    return c->ssl ? verdict(c, SSL_write(c->ssl, data, (int)size)) : write_raw(c, data, size);
}

int conn_push(struct conn *c)
{
    int sent;
    while (c->sealed != NULL && c->fill_left > 0) {
        size_t size = c->fill_left < 1 << 20 ? c->fill_left : 1 << 20;
        if ((sent = write_raw(c, c->sealed + c->sealed_sent, size)) <= 0)
            return sent;
        c->sealed_sent += (size_t)sent;
        c->fill_left -= (uint64_t)sent;
    }
    for (; c->head_left > 0; c->head_left -= sent)
        if ((sent = write_some(c, c->head + 9 - c->head_left, (uint64_t)c->head_left)) <= 0)
            return sent;
    for (; c->fill_left > 0; c->fill_left -= (uint64_t)sent)
        if ((sent = write_some(c, filler, c->fill_left)) <= 0)
            return sent;
    return 1;
}

static int64_t recv_or_wait(struct conn *c, void *into, size_t size, int flags)
{
    ssize_t got = recv(c->fd, into, size, flags);
    if (got == 0)
        errno = 0;
    return got > 0 ? got : got < 0 && errno == EAGAIN ? 0 : -1;
}

static void count_body(struct conn *c, uint32_t size, uint64_t *data)
{
    if ((c->body_left -= size) == 0)
        *data += c->body - OVERHEAD;
}

/* Walks through received bytes, header by header. Adds to *data what finished records held; 0 when it is no record. */
static int count_bytes(struct conn *c, const unsigned char *at, int64_t size, uint64_t *data)
{
    while (size > 0) {
        if (c->body_left > 0) {
            uint32_t taken = size < c->body_left ? (uint32_t)size : c->body_left;
            count_body(c, taken, data);
            at += taken;
            size -= taken;
            continue;
        }
        c->record[c->record_have++] = *at++;
        size--;
        if (c->record_have < 5)
            continue;
        c->record_have = 0;
        c->body = c->body_left = (uint32_t)c->record[3] << 8 | c->record[4];
        if (c->record[0] != SSL3_RT_APPLICATION_DATA || c->body < OVERHEAD)
            return 0;
    }
    return 1;
}

/* One step through the records. What fits one is read at once; of bulk only the headers are, and bodies vanish. */
static int64_t count_some(struct conn *c, uint64_t *data)
{
    int64_t got;
    if (c->want > RECORD && c->body_left > 0) {
        got = recv_or_wait(c, NULL, c->body_left, MSG_TRUNC);
        if (got > 0)
            count_body(c, (uint32_t)got, data);
        return got;
    }
    size_t most = c->want > RECORD ? (size_t)(5 - c->record_have) : 5 + OVERHEAD + c->want;
    got = recv_or_wait(c, scratch, most, 0);
    if (got > 0 && !count_bytes(c, scratch, got, data)) {
        errno = EPROTO;
        return -1;
    }
    return got;
}

/* Receives what the exchange waits for; 1 when all of it is here. */
static int pull(struct conn *c)
{
    while (c->want > 0) {
        uint64_t data = 0;
        int64_t got;
        if (c->counting && c->ssl != NULL) {
            got = count_some(c, &data);
        } else if (c->ssl != NULL) {
            got = verdict(c, SSL_read(c->ssl, scratch, c->want < RECORD ? (int)c->want : RECORD));
            data = got > 0 ? (uint64_t)got : 0;
        } else {
            int bulky = c->want > sizeof scratch;
            got = recv_or_wait(c, scratch, c->want < 1 << 20 ? c->want : 1 << 20, bulky ? MSG_TRUNC : 0);
            data = got > 0 ? (uint64_t)got : 0;
        }
        if (got <= 0)
            return (int)got;
        if (data > c->want) {
            errno = EPROTO;
            return -1;
        }
        c->want -= data;
        received += data;
    }
    return 1;
}

/* The handshake by the cheap client, from ClientHello to the echoed byte. */
static int advance_quick(struct conn *c)
{
    struct shake *s = c->quick;
    for (;;) {
        while (s->out_sent < s->out_size) {
            size_t upto = s->out_sent < s->out_break ? s->out_break : s->out_size;
            int sent = write_raw(c, s->out + s->out_sent, upto - s->out_sent);
            if (sent <= 0)
                return sent;
            s->out_sent += (size_t)sent;
        }
        int64_t got = recv_or_wait(c, s->in + s->in_size, sizeof s->in - s->in_size, 0);
        if (got <= 0)
            return (int)got;
        s->in_size += (size_t)got;
        errno = EPROTO;
        int result = shake_feed(s);
        if (result != 0) {
            received += result > 0;
            c->want = 0;
            return result;
        }
    }
}

int conn_advance(struct conn *c)
{
    int result;
    if (c->phase == CONNECTING) {
        /* Asking again is how connect(2) says whether it has finished, and why not. */
        if (connect(c->fd, (struct sockaddr *)&target, sizeof target) < 0 && errno != EISCONN)
            return errno == EALREADY || errno == EINPROGRESS ? 0 : -1;
        c->phase = c->ssl || c->is_quick ? SHAKING : OPEN;
    }
    if (c->is_quick)
        return advance_quick(c);
    if (c->phase == SHAKING) {
        if ((result = verdict(c, SSL_do_handshake(c->ssl))) <= 0)
            return result;
        c->phase = OPEN;
    }
    if (c->phase != OPEN || c->want == 0)
        return 0;
    result = conn_push(c);
    return result > 0 ? pull(c) : result;
}

int conn_count(struct conn *c)
{
    if (c->ssl != NULL && !c->counting && SSL_has_pending(c->ssl))
        return 0;
    c->counting = c->ssl != NULL;
    return 1;
}

int conn_was_resumed(const struct conn *c)
{
    return c->is_quick ? c->quick->resumed : c->ssl != NULL && SSL_session_reused(c->ssl);
}

void conn_seal(struct conn *c, uint64_t size, long times, int is_upload)
{
    uint64_t total = size * (uint64_t)times + (is_upload ? 9 : 0), records = total / RECORD + (uint64_t)times + 1;
    if (c->ssl == NULL)
        return;
    SSL_set0_wbio(c->ssl, BIO_new(BIO_s_mem()));
    free(c->sealed);
    c->sealed = malloc(total + records * 32);
    c->sealed_size = c->sealed_sent = 0;
    c->sealed_step = is_upload ? 0 : size + 5 + OVERHEAD;
    conn_begin(c, is_upload ? 'U' : 0, size, 0, 0);
    for (uint64_t left_over = total; c->sealed != NULL && left_over > 0;) {
        int head = c->head_left > 0, got;
        uint64_t most = is_upload ? RECORD : size;
        most = left_over < most ? left_over : most;
        int took = head ? SSL_write(c->ssl, c->head, 9) : SSL_write(c->ssl, filler, (int)most);
        while ((got = BIO_read(SSL_get_wbio(c->ssl), c->sealed + c->sealed_size, 2 * RECORD)) > 0)
            c->sealed_size += (size_t)got;
        if (took <= 0)
            break;
        c->head_left = 0;
        left_over -= (uint64_t)took;
    }
    SSL_set0_wbio(c->ssl, BIO_new_socket(c->fd, BIO_NOCLOSE));
}

void conn_unseal(struct conn *c)
{
    free(c->sealed);
    c->sealed = NULL;
}
