/* What a program of `closer.c` needs of a TLS library. Failures end the program with a word about them. */

void tls_begin(int fd, int is_server, const char *certificate, const char *key);
void tls_write(const unsigned char *data, int size);

/* The library's own way to say goodbye. */
void tls_goodbye(void);

void fail(const char *what);
