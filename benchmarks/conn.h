/*
 * One connection of the load generator, and the exchange that is under way on it: a request, filler, and so many bytes
 * that must come back. What the exchanges are for, and when the next one begins, is loadgen.c's business.
 *
 * Two things keep a connection cheap. What comes is not decrypted: record headers are added up, and of bulk the kernel
 * throws the bodies away uncopied (MSG_TRUNC on TCP). That works because a TLS 1.3 record holds 17 bytes more than its
 * data, and because session tickets, which look the same from outside, come before the first echoed byte, which libssl
 * does decrypt. What goes can be encrypted ahead of time (`conn_seal`); the kernel is then all that is left.
 */
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdint.h>

#include "shake.h"

enum phase { CLOSED, CONNECTING, SHAKING, OPEN };

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
    long echoes_left;               /* loadgen's count of round trips to begin */
    double started;
};

extern struct sockaddr_in target;
extern SSL_CTX *context;            /* NULL without TLS */
extern int poller;                  /* the epoll every connection is registered with */
extern uint64_t received;           /* bytes of data, by all connections */

double now(void);

/* Everything a process needs once; 0 when libssl does not know the suite or the group. */
int conn_setup(const char *suite, const char *group);

/* Connects; the first exchange is one byte echoed. With `quick`, by the client of shake.h, which serves for this one
 * exchange only. With `resume`, by the newest ticket. -1 when there is no descriptor or no port left. */
int conn_dial(struct conn *c, int quick, int resume);

/* Sets an exchange up: a command of nine bytes (or none), filler after it, and how much must come back. */
void conn_begin(struct conn *c, char letter, uint64_t number, uint64_t fill, uint64_t want);

/* Sends what the exchange has to send: 1 when all of it is with the kernel, 0 when that is full, -1 when it failed. */
int conn_push(struct conn *c);

/* Goes as far as it can: 1 when the exchange is complete, 0 when there is none or it must wait, -1 when it failed. */
int conn_advance(struct conn *c);

/* Switches from decrypting to counting, for good; 0 when libssl has read ahead and it cannot be done. */
int conn_count(struct conn *c);

/* Encrypts `times` messages of `size` bytes each, or one upload with its command. The next exchanges send from that. */
void conn_seal(struct conn *c, uint64_t size, long times, int is_upload);
void conn_unseal(struct conn *c);

/* Says goodbye and closes. */
void conn_shut(struct conn *c);

int conn_was_resumed(const struct conn *c);
