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
 * A load generator that is slower than the proxy measures itself. Three things keep this one faster: records that come
 * are counted and not decrypted, records that go are encrypted ahead (round trips always, uploads after `seal`; both in
 * conn.h), and handshakes are made by a client that leaves out what the server cannot see (shake.h). Every answer
 * carries this process's own CPU time, so that the claim can be checked for each row. Integrity is not its business,
 * only counts are; that every byte arrives unchanged is what the interop tests prove.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "conn.h"

enum { EVENTS = 256, OPENING = 64, STALL_MS = 20000, MAX_CONNS = 60000 };
enum work { OPENS, ECHOES, BULK, SHAKES };

static struct conn *conns[MAX_CONNS];
static int held, next_open;

/* The command under way. */
static enum work work;
static int resuming, quick_wanted;
static long to_start, left, done, resumed, failed, sample_count;
static uint64_t echo_size;
static double *samples;
static char failure[256];
static const char *suite, *group, *asked_suite, *asked_group;

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

/* The next round trip of a connection. */
static void begin_echo(struct conn *c)
{
    conn_begin(c, 0, 0, c->sealed ? c->sealed_step : echo_size, echo_size);
    c->echoes_left--;
}

/* Opens the next connection that is due: in the place of `c` while handshakes are counted, in a new one otherwise. */
static void start(struct conn *c)
{
    while (to_start > 0) {
        to_start--;
        if (work == OPENS)
            c = conns[next_open++];
        if (conn_dial(c, quick_wanted && work == SHAKES, resuming) == 0)
            return;
        say_why("connect");
        conn_shut(c);
        failed++;
        left--;
    }
}

/* An exchange is over: counts it, and begins what comes after it. */
static void go_on(struct conn *c)
{
    done++;
    left--;
    if (work == BULK)
        return;
    samples[sample_count++] = now() - c->started;
    if (work == ECHOES) {
        if (c->echoes_left > 0)
            begin_echo(c);
        return;
    }
    resumed += conn_was_resumed(c);
    if (suite == NULL && context != NULL) {
        suite = c->is_quick ? asked_suite : SSL_get_cipher_name(c->ssl);  /* the quick client accepts no other */
        group = c->is_quick ? asked_group : SSL_group_to_name(c->ssl, (int)SSL_get_negotiated_group(c->ssl));
    }
    if (work == SHAKES)
        conn_shut(c);
    start(c);
}

/* Takes one connection as far as it goes; one that fails is counted, and its turn passes to another. */
static void drive(struct conn *c)
{
    int result;
    errno = 0;
    if (c->phase == CLOSED)
        return;
    if ((result = conn_advance(c)) > 0) {
        go_on(c);
        /* The answer to what is sent now cannot be here yet: its edge will say so. */
        result = work == ECHOES ? conn_push(c) : 0;
    }
    if (result >= 0)
        return;
    say_why(c->phase == OPEN ? "connection" : c->phase == SHAKING ? "handshake" : "connect");
    conn_shut(c);
    failed++;
    left--;
    if (work == OPENS || work == SHAKES)
        start(c);
}

/* ---- commands ---- */

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
           done, failed, seconds, busy, (unsigned long long)received, resumed, percentile(0.5), percentile(0.9),
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
    received = 0;
    failure[0] = 0;
    suite = group = NULL;
    resuming = 0;
    sscanf(line, "%15s %llu", word, &amount);
    if (strcmp(word, "stop") == 0)
        return;
    if (strcmp(word, "close") == 0) {
        for (; held > 0; done++)
            conn_shut(conns[--held]);
    } else if (strcmp(word, "open") == 0 || strcmp(word, "shake") == 0) {
        work = word[0] == 'o' ? OPENS : SHAKES;
        sscanf(line, "%*s %*s %llu %15s %15s", &a, how, by);
        quick_wanted = strcmp(by, "libssl") != 0;
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
                conn_shut(conns[held + i]);
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
            if (each->phase != OPEN || !conn_count(each)) {
                errno = ENOTCONN;
                say_why("connection");
                conn_shut(each);
                failed++;
                left--;
                continue;
            }
            each->echoes_left = echo ? (long)amount / count + (i - first < (long)amount % count) : 0;
                if (sealing || echo)
                conn_seal(each, echo ? a : amount, echo ? each->echoes_left : 1, !echo);
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
                conn_begin(each, 0, 0, each->sealed_size, 1);
            else
                conn_begin(each, up ? 'U' : 'D', amount, up ? amount : 0, up ? 1 : amount);
            if (echo || up || down)
                drive(each);
            else if (conn_push(each) == 1)
                each->want = 0, left--, done++;
        }
        if (echo || up || down)
            cut_short = run();
        for (int i = first; i < first + count && !sealing; i++)
            conn_unseal(conns[i]);
        if (up)
            received = amount * (unsigned long long)done;
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
    if (tls)
        asked_suite = argv[2], asked_group = argv[3];
    if (!conn_setup(asked_suite, asked_group)) {
        fprintf(stderr, "loadgen: %s does not offer %s with %s\n", OpenSSL_version(OPENSSL_VERSION), argv[2], argv[3]);
        return 2;
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
