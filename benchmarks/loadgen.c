/*
 * The client side of the comparison: one process, one thread, one epoll, OpenSSL's own libssl.
 *
 *     loadgen PORT SUITE GROUP        TLS 1.3 to 127.0.0.1:PORT with exactly that suite and group
 *     loadgen PORT plain              the same workloads without TLS
 *
 * It reads one command per line on standard input and answers each with one JSON object on standard output, so that
 * whoever drives it can read the proxy's CPU time before and after a command:
 *
 *     open COUNT                      hold COUNT more connections, each handshaken and proved by one echoed byte
 *     echo COUNT SIZE FIRST CONNS     COUNT round trips of SIZE bytes over the held connections from FIRST on
 *     download BYTES FIRST CONNS      BYTES on each of them, backend to client
 *     seal BYTES FIRST CONNS          encrypt an upload of BYTES now, to be sent by the next `upload`
 *     upload BYTES FIRST CONNS        BYTES on each of them, client to backend
 *     ask BYTES FIRST CONNS           request such a download and never read it
 *     shake COUNT CONNS full|resume   COUNT times connect, handshake, one byte echoed, close; CONNS at a time; with
 *                                     `libssl` as a fourth word never by the cheap client of shake.h
 *     close                           close what is held
 *     stop                            end the command under way early (any input does) and say how far it came
 *
 * A load generator that is slower than the proxy measures itself. Four things keep this one faster. What comes is not
 * decrypted: record headers are read and added up, and of bulk the kernel throws the bodies away uncopied (MSG_TRUNC
 * on TCP). What goes is encrypted ahead: round trips always, uploads after `seal`. Handshakes are made by a client that leaves out what the
 * server cannot see (shake.h). And every answer carries this process's own CPU time, so that the claim can be checked for each row. Integrity is
 * not its business, only counts are; that every byte arrives unchanged is what the interop tests prove.
 *
 * Counting records without decrypting them works because a TLS 1.3 record holds 17 bytes more than its data, and
 * because session tickets, which look the same from outside, come before the first echoed byte, which is decrypted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "shake.h"

enum { EVENTS = 256, OPENING = 64, STALL_MS = 20000, RECORD = 16384, OVERHEAD = 17, MAX_CONNS = 60000 };
enum phase { CLOSED, CONNECTING, SHAKING, OPEN };
enum work { OPENS, ECHOES, BULK, SHAKES };

struct conn {
    int fd;
    enum phase phase;
    SSL *ssl;
    SSL_SESSION *session;           /* the newest ticket, offered when resuming */
    struct shake *quick;            /* in the place of `ssl` for handshakes alone; kept for its ticket */
    int is_quick;
    unsigned char head[9];          /* the command of the exchange under way */
    int head_left;
    uint64_t fill_left;             /* filler still to be sent after it */
    uint64_t want;                  /* bytes still to be received */
    int counting;                   /* records are counted from here on, not decrypted */
    unsigned char record[5];
    int record_have;
    uint32_t body, body_left;
    unsigned char *sealed;          /* a whole upload, encrypted beforehand */
    size_t sealed_size, sealed_sent, sealed_step;   /* or one of the records of many round trips, all of one size */
    long echoes_left;
    double started;
};

static struct conn *conns[MAX_CONNS];
static int held, next_open, poller;
static struct sockaddr_in target = {.sin_family = AF_INET};
static SSL_CTX *context;            /* NULL without TLS */
static int quick_possible, quick_wanted;
static unsigned char filler[256 * 1024], scratch[64 * 1024];

/* The command under way. */
static enum work work;
static long to_start, left, done, resumed, failed, sample_count;
static uint64_t echo_size, bytes;
static int resuming;
static double *samples;
static char failure[256];
static const char *suite, *group, *asked_suite, *asked_group;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void say_why(const char *what)
{
    unsigned long code = ERR_peek_error();
    if (failure[0] == 0)
        snprintf(failure, sizeof failure, "%s: %s", what,
                 code ? ERR_reason_error_string(code) : errno ? strerror(errno) : "closed by the other side");
    ERR_clear_error();
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

/* ---- one connection ---------------------------------------------------------------------------------------------- */

static void shut(struct conn *c)
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

/* Sets an exchange up: a command of nine bytes (or none), filler after it, and how much must come back. */
static void begin(struct conn *c, char letter, uint64_t number, uint64_t fill, uint64_t want)
{
    c->head_left = letter ? 9 : 0;
    c->head[0] = (unsigned char)letter;
    for (int i = 8; i >= 1; i--, number >>= 8)
        c->head[i] = (unsigned char)number;
    c->fill_left = fill;
    c->want = want;
    c->started = now();
}

static int dial(struct conn *c)
{
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->phase = CONNECTING;
    c->counting = c->record_have = 0;
    c->body_left = 0;
    c->is_quick = quick_wanted && work == SHAKES;
    if (c->is_quick) {
        if (c->quick == NULL && (c->quick = calloc(1, sizeof *c->quick)) == NULL)
            return -1;
        shake_begin(c->quick, resuming);
    } else if (context != NULL) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_app_data(c->ssl, c);
        SSL_set_connect_state(c->ssl);
        if (resuming && c->session != NULL)
            SSL_set_session(c->ssl, c->session);
    }
    begin(c, 0, 0, 1, 1);
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

/* Sends what the exchange has to send; 1 when all of it is with the kernel. */
static int push(struct conn *c)
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
        bytes += data;
    }
    return 1;
}

/* The next round trip of a connection. */
static void begin_echo(struct conn *c)
{
    begin(c, 0, 0, c->sealed ? c->sealed_step : echo_size, echo_size);
    c->echoes_left--;
}

/* Opens the next connection that is due: in the place of `c` while handshakes are counted, in a new one otherwise. */
static void start(struct conn *c)
{
    while (to_start > 0) {
        to_start--;
        if (work == OPENS)
            c = conns[next_open++];
        if (dial(c) == 0)
            return;
        say_why("connect");
        shut(c);
        failed++;
        left--;
    }
}

/* An exchange is over: counts it, and says whether the connection has another one to go on with. */
static int next_exchange(struct conn *c)
{
    done++;
    left--;
    if (work == BULK)
        return 0;
    samples[sample_count++] = now() - c->started;
    if (work == ECHOES) {
        if (c->echoes_left == 0)
            return 0;
        begin_echo(c);
        return 1;
    }
    resumed += c->is_quick ? c->quick->resumed : c->ssl != NULL && SSL_session_reused(c->ssl);
    if (work == SHAKES)
        shut(c);
    start(c);
    return 0;
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
            bytes += result > 0;
            suite = asked_suite, group = asked_group;   /* it accepts no other */
            c->want = 0;
            return result > 0 ? next_exchange(c) : -1;
        }
    }
}

static int advance(struct conn *c)
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
        if (suite == NULL) {
            suite = SSL_get_cipher_name(c->ssl);
            group = SSL_group_to_name(c->ssl, (int)SSL_get_negotiated_group(c->ssl));
        }
    }
    while (c->phase == OPEN && c->want > 0) {
        if ((result = push(c)) <= 0 || (result = pull(c)) <= 0 || (result = next_exchange(c)) == 0)
            return result;
        /* The answer to what is sent now cannot be here yet: its edge will say so. */
        if (work == ECHOES)
            return push(c);
    }
    return 0;
}

/* Takes one connection as far as it goes; one that fails is counted, and its turn passes to another. */
static void drive(struct conn *c)
{
    errno = 0;
    if (c->phase == CLOSED || advance(c) >= 0)
        return;
    say_why(c->phase == OPEN ? "connection" : c->phase == SHAKING ? "handshake" : "connect");
    shut(c);
    failed++;
    left--;
    if (work == OPENS || work == SHAKES)
        start(c);
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static int run(void)
{
    struct epoll_event ready[EVENTS];
    while (left > 0) {
        int count = epoll_wait(poller, ready, EVENTS, STALL_MS);
        if (count == 0) {
            errno = ETIMEDOUT;
            say_why("nothing happened for 20 seconds");
        }
        if (count <= 0)
            return 1;
        for (int i = 0; i < count; i++) {
            if (ready[i].data.ptr == NULL)
                return 1;   /* a line on standard input, or its end */
            drive(ready[i].data.ptr);
        }
    }
    return 0;
}

/* Encrypts `times` messages of `size` bytes of filler each, the first after an upload's command if `is_upload`. */
static void seal(struct conn *c, uint64_t size, long times, int is_upload)
{
    uint64_t total = size * (uint64_t)times + (is_upload ? 9 : 0), records = total / RECORD + (uint64_t)times + 1;
    SSL_set0_wbio(c->ssl, BIO_new(BIO_s_mem()));
    free(c->sealed);
    c->sealed = malloc(total + records * 32);
    c->sealed_size = c->sealed_sent = 0;
    c->sealed_step = is_upload ? 0 : size + 5 + OVERHEAD;
    begin(c, is_upload ? 'U' : 0, size, 0, 0);
    for (uint64_t left_over = total; c->sealed != NULL && left_over > 0;) {
        int head = c->head_left > 0, got;
        uint64_t most = is_upload ? RECORD : size;
        int took = head ? SSL_write(c->ssl, c->head, 9) : SSL_write(c->ssl, filler, (int)(left_over < most ? left_over : most));
        while ((got = BIO_read(SSL_get_wbio(c->ssl), c->sealed + c->sealed_size, 2 * RECORD)) > 0)
            c->sealed_size += (size_t)got;
        if (took <= 0)
            break;
        c->head_left = 0;
        left_over -= (uint64_t)took;
    }
    SSL_set0_wbio(c->ssl, BIO_new_socket(c->fd, BIO_NOCLOSE));
}

static void unseal(struct conn *c)
{
    free(c->sealed);
    c->sealed = NULL;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double share)
{
    return sample_count ? samples[(long)(share * (double)(sample_count - 1))] * 1e6 : 0;
}

static void answer(double since, double cpu_since, int cut_short)
{
    double seconds = now() - since, busy = cpu() - cpu_since;
    qsort(samples, (size_t)sample_count, sizeof *samples, ascending);
    printf("{\"done\": %ld, \"failed\": %ld, \"seconds\": %.6f, \"cpu\": %.6f, \"bytes\": %llu, \"resumed\": %ld, "
           "\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"cut_short\": %s, "
           "\"suite\": \"%s\", \"group\": \"%s\", \"failure\": \"%s\"}\n",
           done, failed, seconds, busy, (unsigned long long)bytes, resumed, percentile(0.5), percentile(0.9),
           percentile(0.99), percentile(1.0), cut_short ? "true" : "false", suite ? suite : "", group ? group : "",
           failure);
    fflush(stdout);
}

static void make_conns(int upto)
{
    if (upto > MAX_CONNS) {
        fprintf(stderr, "loadgen: %d connections: at most %d\n", upto, MAX_CONNS);
        exit(2);
    }
    for (int i = 0; i < upto; i++)
        if (conns[i] == NULL && (conns[i] = calloc(1, sizeof **conns)) == NULL)
            exit(1);
}

static void obey(char *line)
{
    char word[16] = "", how[16] = "", by[16] = "";
    unsigned long long amount = 0, a = 0, b = 0, c = 0;
    double since = now(), cpu_since = cpu();
    int cut_short = 0;

    done = left = to_start = resumed = failed = sample_count = 0;
    bytes = 0;
    failure[0] = 0;
    suite = group = NULL;
    resuming = 0;
    sscanf(line, "%15s %llu", word, &amount);
    if (strcmp(word, "stop") == 0)
        return;
    if (strcmp(word, "close") == 0) {
        for (; held > 0; done++)
            shut(conns[--held]);
    } else if (strcmp(word, "open") == 0 || strcmp(word, "shake") == 0) {
        work = word[0] == 'o' ? OPENS : SHAKES;
        sscanf(line, "%*s %*s %llu %15s %15s", &a, how, by);
        quick_wanted = quick_possible && strcmp(by, "libssl") != 0;
        resuming = strcmp(how, "resume") == 0;
        int width = work == OPENS ? OPENING : (int)a, used = work == OPENS ? (int)amount : width;
        make_conns(held + used);
        left = to_start = (long)amount;
        next_open = held;
        samples = realloc(samples, sizeof *samples * amount);
        for (int i = 0; i < width; i++)
            start(work == OPENS ? NULL : conns[held + i]);
        cut_short = run();
        if (work == OPENS)
            held += used;
        else
            for (int i = 0; i < width; i++)
                shut(conns[held + i]);
    } else {
        int echo = strcmp(word, "echo") == 0, down = strcmp(word, "download") == 0;
        int up = strcmp(word, "upload") == 0, sealing = strcmp(word, "seal") == 0;
        work = echo ? ECHOES : BULK;
        sscanf(line, "%*s %*s %llu %llu %llu", &a, &b, &c);
        int first = (int)(echo ? b : a), count = (int)(echo ? c : b);
        if (first + count > held || count == 0 || !(echo || down || up || sealing || strcmp(word, "ask") == 0)) {
            fprintf(stderr, "loadgen: cannot: %s", line);
            exit(2);
        }
        left = echo ? (long)amount : count;
        echo_size = a;
        samples = realloc(samples, sizeof *samples * (size_t)(left + count));
        for (int i = first; i < first + count; i++) {
            struct conn *each = conns[i];
            if (each->phase != OPEN || (each->ssl != NULL && !each->counting && SSL_has_pending(each->ssl))) {
                errno = ENOTCONN;
                say_why("connection");
                shut(each);
                failed++;
                left--;
                continue;
            }
            each->counting = each->ssl != NULL;
            each->echoes_left = echo ? (long)amount / count + (i - first < (long)amount % count) : 0;
                if (each->ssl != NULL && (sealing || echo))
                seal(each, echo ? a : amount, echo ? each->echoes_left : 1, !echo);
        }
        since = now();
        cpu_since = cpu();
        for (int i = first; i < first + count && !sealing; i++) {
            struct conn *each = conns[i];
            if (each->phase != OPEN || (echo && each->echoes_left == 0))
                continue;
            if (echo)
                begin_echo(each);
            else if (up && each->sealed != NULL)
                begin(each, 0, 0, each->sealed_size, 1);
            else
                begin(each, up ? 'U' : 'D', amount, up ? amount : 0, up ? 1 : amount);
            if (echo || up || down)
                drive(each);
            else if (push(each) == 1)
                each->want = 0, left--, done++;
        }
        if (echo || up || down)
            cut_short = run();
        for (int i = first; i < first + count && !sealing; i++)
            unseal(conns[i]);
        if (up)
            bytes = amount * (unsigned long long)done;
    }
    answer(since, cpu_since, cut_short);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    char line[256];
    int tls = argc == 4;
    if (argc < 3 || argc > 4 || (!tls && strcmp(argv[2], "plain") != 0)) {
        fprintf(stderr, "usage: loadgen PORT SUITE GROUP | loadgen PORT plain\n");
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.sin_port = htons((uint16_t)atoi(argv[1]));
    memset(filler, 'e', sizeof filler);
    if (tls) {
        asked_suite = argv[2], asked_group = argv[3];
        context = SSL_CTX_new(TLS_client_method());
        if (!SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) || !SSL_CTX_set_ciphersuites(context, argv[2])
            || !SSL_CTX_set1_groups_list(context, argv[3])) {
            fprintf(stderr, "loadgen: %s does not offer %s with %s\n", OpenSSL_version(OPENSSL_VERSION), argv[2],
                    argv[3]);
            return 2;
        }
        SSL_CTX_set_cert_verify_callback(context, trust_anyone, NULL);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_ticket);
        quick_possible = shake_setup(context, argv[2], argv[3]);
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event want = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &want);
    printf("{\"library\": \"%s\"}\n", tls ? OpenSSL_version(OPENSSL_VERSION) : "none");
    fflush(stdout);
    setvbuf(stdin, NULL, _IONBF, 0);    /* a command that waits must stay in the pipe, where epoll sees it */
    while (fgets(line, sizeof line, stdin) != NULL)
        obey(line);
    return 0;
}
