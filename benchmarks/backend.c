/*
 * The service behind the proxy under test: echo, source and sink on one port, so that one running proxy serves every
 * workload.
 *
 * What a client may write, in any order and number:
 *   'D' and a 64-bit big-endian number N    the backend sends N bytes
 *   'U', such a number, then N bytes        the backend discards them and sends one byte
 *   anything else                           sent back, byte for byte
 *
 * Every byte ever sent is an 'e', and so is every byte a client asks to have echoed. A connection's whole state is
 * therefore two numbers, what is owed and what is to be discarded, and the backend cannot become the bottleneck: the
 * sink reads into one buffer and the source sends from one, both of which stay in the cache. (The sink reads, though it
 * throws away: told by MSG_TRUNC not to copy, the kernel of a busy machine took bytes that it did not report.)
 *
 * It prints its port and ends when its standard input does, so it never outlives whoever started it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, BACKLOG = 4096 };

struct conn {
    int fd;
    int head_have;          /* bytes of the 9-byte command seen so far; 0 between commands */
    unsigned char head[9];
    uint64_t owed;          /* bytes still to send */
    uint64_t discard;       /* bytes of an upload still to come */
    int ended;              /* the client's side has ended */
};

static char filler[256 * 1024];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void command_done(struct conn *c)
{
    uint64_t number = 0;
    for (int i = 1; i < 9; i++)
        number = number << 8 | c->head[i];
    if (c->head[0] == 'D')
        c->owed += number;
    else if (number == 0)
        c->owed += 1;
    else
        c->discard = number;
    c->head_have = 0;
}

static void parse(struct conn *c, const unsigned char *data, size_t size)
{
    for (size_t i = 0; i < size;) {
        if (c->discard > 0) {
            uint64_t taken = size - i < c->discard ? size - i : c->discard;
            i += taken;
            c->discard -= taken;
            if (c->discard == 0)
                c->owed += 1;
        } else if (c->head_have > 0 || data[i] == 'D' || data[i] == 'U') {
            c->head[c->head_have++] = data[i++];
            if (c->head_have == 9)
                command_done(c);
        } else {
            i++;
            c->owed += 1;
        }
    }
}

/* Both loops run until the kernel says it would block, which is what edge-triggered readiness asks for. The proxy is
 * slower than this program by far, so no connection can keep it here for long. Returns 0 when the connection is
 * over. */
static int serve(struct conn *c, uint32_t events)
{
    static unsigned char buffer[16 * 1024], sink[256 * 1024];
    while (!c->ended) {
        int bulky = c->discard > sizeof buffer;
        size_t most = c->discard - 1 < sizeof sink ? c->discard - 1 : sizeof sink;
        ssize_t got = bulky ? recv(c->fd, sink, most, 0) : recv(c->fd, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EAGAIN)
            break;
        if (got < 0)
            return 0;
        if (got == 0)
            c->ended = 1;
        else if (bulky)
            c->discard -= (uint64_t)got;
        else
            parse(c, buffer, (size_t)got);
        /* A short read emptied the socket, and what comes now brings an edge; only an end that is already known of
         * does not. */
        if (!bulky && got > 0 && (size_t)got < sizeof buffer && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            break;
    }
    while (c->owed > 0) {
        ssize_t sent = send(c->fd, filler, c->owed < sizeof filler ? c->owed : sizeof filler, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN;
        c->owed -= (uint64_t)sent;
    }
    return !c->ended;
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, BACKLOG) < 0
        || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        die("backend: listen");
    memset(filler, 'e', sizeof filler);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event want = {.events = EPOLLIN, .data.ptr = &listener}, ready[EVENTS];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &want);
    want.data.ptr = &poll;  /* stands for standard input, whose end is ours */
    if (epoll_ctl(poll, EPOLL_CTL_ADD, STDIN_FILENO, &want) < 0)
        die("backend: standard input must be a pipe or a terminal");
    for (;;) {
        int count = epoll_wait(poll, ready, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            die("backend: epoll_wait");
        for (int i = 0; i < count; i++) {
            if (ready[i].data.ptr == &poll)
                return 0;
            if (ready[i].data.ptr == &listener) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    struct conn *c = calloc(1, sizeof *c);
                    if (c == NULL)
                        die("backend: memory");
                    c->fd = fd;
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    want = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
                    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &want);
                }
                if (errno == EMFILE || errno == ENFILE)
                    die("backend: accept");
                continue;
            }
            struct conn *c = ready[i].data.ptr;
            if (!serve(c, ready[i].events)) {
                close(c->fd);
                free(c);
            }
        }
    }
}
