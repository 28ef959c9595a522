/* Sends SIZE bytes in TLS and closes, once, as client of PORT or as a server there, which says when it listens.
 *
 *     closer client PORT SIZE goodbye|bare|reset
 *     closer server PORT SIZE goodbye|bare|reset CERTIFICATE KEY
 *
 * Byte i is i % 251. "bare" closes the socket without the library's goodbye, "reset" after it with a reset. Nobody is
 * verified: that is not what it is for.
 */
#include "closer.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

int main(int argc, char **argv)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof where;
    static unsigned char data[251 * 64];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int is_server;
    long size;

    if (argc < 5)
        fail("closer client|server PORT SIZE HOW [CERTIFICATE KEY]");
    signal(SIGPIPE, SIG_IGN);
    is_server = strcmp(argv[1], "server") == 0;
    where.sin_port = htons((unsigned short)atoi(argv[2]));
    if (is_server) {
        int listener = fd, yes = 1;
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        if (bind(listener, (struct sockaddr *)&where, length) || listen(listener, 1))
            fail("listen");
        puts("listening");
        fflush(stdout);
        fd = accept(listener, NULL, NULL);
    } else if (connect(fd, (struct sockaddr *)&where, length)) {
        fail("connect");
    }
    tls_begin(fd, is_server, is_server ? argv[5] : NULL, is_server ? argv[6] : NULL);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i % 251);
    for (size = atol(argv[3]); size > 0; size -= (long)sizeof data)
        tls_write(data, size < (long)sizeof data ? (int)size : (int)sizeof data);
    if (strcmp(argv[4], "bare") != 0)
        tls_goodbye();
    if (strcmp(argv[4], "reset") == 0) {
        struct linger now = {1, 0};
        int left;
        do { /* until everything is with the other side's kernel: a reset would destroy it on our own */
            usleep(1000);
            if (ioctl(fd, SIOCOUTQ, &left))
                fail("SIOCOUTQ");
        } while (left);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    close(fd);
    return 0;
}
