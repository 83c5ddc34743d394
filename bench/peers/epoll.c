/*
 * An epoll loop by hand, without any abstraction: what the machine can do. epoll MODE BYTES SIZE
 *
 * Level-triggered, one buffer for reading; what the kernel does not take is kept per connection, and nothing is read
 * from that connection until it is gone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 65536
#define MAX_EVENTS 512

struct connection {
  int fd;
  bool writing;     /* waits until it can write */
  bool ending;      /* to be closed after what is kept is written */
  char *kept;       /* what the kernel did not take, or the beginning of a line */
  size_t kept_length, kept_capacity;
  uint64_t received, to_send;
};

static enum { ECHO, LINES, SEND, RECEIVE, WRITES, REQUESTS } mode;
static uint64_t bytes = 0;
static size_t size = 64;
static int epoll_fd;
static char *buffer, *out;

static void keep(struct connection *c, const char *data, size_t length) {
  if (c->kept_length + length > c->kept_capacity) {
    c->kept_capacity = (c->kept_length + length) * 2;
    c->kept = realloc(c->kept, c->kept_capacity);
  }
  memcpy(c->kept + c->kept_length, data, length);
  c->kept_length += length;
}

static void release(struct connection *c) {
  close(c->fd);
  free(c->kept);
  free(c);
}

static void want(struct connection *c, bool writing) {
  if (c->writing == writing) return;
  c->writing = writing;
  struct epoll_event event = {.events = writing ? EPOLLOUT : EPOLLIN, .data.ptr = c};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

/* Bytes taken, or -1 when the connection is lost. */
static ssize_t put(struct connection *c, const char *data, size_t length) {
  size_t done = 0;
  while (done < length) {
    ssize_t n = send(c->fd, data + done, length - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) return -1;
    done += (size_t)n;
  }
  return (ssize_t)done;
}

/* Sends all of it, or keeps the rest and stops reading. False when the connection is lost. */
static bool reply(struct connection *c, const char *data, size_t length) {
  ssize_t n = put(c, data, length);
  if (n < 0) return false;
  if ((size_t)n < length) {
    keep(c, data + n, length - (size_t)n);
    want(c, true);
  }
  return true;
}

/* SEND writes chunk by chunk; WRITES gathers its small writes into a buffer, as stdio does. */
static bool produce(struct connection *c) {
  while (c->to_send > 0) {
    size_t length = 0;
    const char *data = buffer;
    if (mode == SEND) {
      length = size < c->to_send ? size : (size_t)c->to_send;
    } else {
      for (; length + size <= READ_SIZE && length < c->to_send; length += size) memcpy(out + length, buffer, size);
      if (length > c->to_send) length = (size_t)c->to_send;
      data = out;
    }
    ssize_t n = put(c, data, length);
    if (n < 0) return false;
    c->to_send -= (uint64_t)n;
    if ((size_t)n < length) {
      want(c, true);
      return true;
    }
  }
  return false; /* Done: it is closed. */
}

/* Writes every line that is whole, each copied by itself, and keeps the rest. */
static bool echo_lines(struct connection *c, const char *data, size_t length) {
  size_t start = 0, written = 0;
  bool first = c->kept_length > 0;
  for (;;) {
    const char *end = memchr(data + start, '\n', length - start);
    if (end == NULL) break;
    size_t line = (size_t)(end - data) + 1 - start;
    if (first && c->kept_length > READ_SIZE) return false; /* Too long a line. */
    if (first) {
      keep(c, data + start, line);
      memcpy(out, c->kept, c->kept_length);
      written = c->kept_length;
      c->kept_length = 0;
      first = false;
    } else {
      memcpy(out + written, data + start, line);
      written += line;
    }
    start += line;
  }
  ssize_t n = put(c, out, written);
  if (n < 0) return false;
  if ((size_t)n < written) {
    /* Lines were cut: what is left of them goes first, then what has come of the next. */
    keep(c, out + n, written - (size_t)n);
    want(c, true);
  }
  if (start < length) keep(c, data + start, length - start);
  return true;
}

static bool on_readable(struct connection *c) {
  ssize_t n = recv(c->fd, buffer, READ_SIZE, 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  c->received += (uint64_t)n;
  switch (mode) {
    case ECHO:
      return reply(c, buffer, (size_t)n);
    case LINES:
      return echo_lines(c, buffer, (size_t)n);
    case RECEIVE:
      if (c->received >= bytes) {
        char answer[32];
        int length = snprintf(answer, sizeof answer, "%llu\n", (unsigned long long)c->received);
        put(c, answer, (size_t)length);
        return false;
      }
      return true;
    case REQUESTS:
      if (memchr(buffer, '\n', (size_t)n) == NULL) return true;
      put(c, out, size);
      return false;
    default:
      return true;
  }
}

static bool on_writable(struct connection *c) {
  if (mode == SEND || mode == WRITES) return produce(c);
  ssize_t n = put(c, c->kept, c->kept_length);
  if (n < 0) return false;
  memmove(c->kept, c->kept + n, c->kept_length - (size_t)n);
  c->kept_length -= (size_t)n;
  if (c->kept_length == 0) want(c, false);
  return true;
}

static void accept_all(int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct connection *c = calloc(1, sizeof *c);
    c->fd = fd;
    c->to_send = bytes;
    c->writing = mode == SEND || mode == WRITES;
    struct epoll_event event = {.events = c->writing ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
  }
}

int main(int argc, char **argv) {
  static const char *const names[] = {"echo", "lines", "send", "receive", "writes", "requests"};
  int found = -1;
  for (int i = 0; i < 6 && argc > 1; i++) {
    if (strcmp(argv[1], names[i]) == 0) found = i;
  }
  if (found < 0) {
    fprintf(stderr, "no such mode\n");
    return 2;
  }
  mode = found;
  if (argc > 2) bytes = strtoull(argv[2], NULL, 10);
  if (argc > 3) size = strtoul(argv[3], NULL, 10);

  signal(SIGUSR2, SIG_IGN); /* Asks others to collect their garbage. */

  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  buffer = malloc(READ_SIZE);
  /* A line may have begun in an earlier chunk. */
  out = malloc(2 * READ_SIZE + size);
  memset(out, 'r', size);
  out[size - 1] = '\n';
  memset(buffer, 'x', READ_SIZE);

  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 1024) < 0) {
    perror("listen");
    return 1;
  }
  getsockname(listener, (struct sockaddr *)&address, &length);
  printf("PORT %d\n", ntohs(address.sin_port));
  fflush(stdout);

  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
  /* At the end of input the harness is gone. */
  event.data.ptr = NULL;
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);

  struct epoll_event events[MAX_EVENTS];
  for (;;) {
    int count = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
    for (int i = 0; i < count; i++) {
      if (events[i].data.ptr == NULL) {
        if (read(0, buffer, READ_SIZE) <= 0) return 0;
      } else if (events[i].data.ptr == &listener) {
        accept_all(listener);
      } else {
        struct connection *c = events[i].data.ptr;
        if (!(c->writing ? on_writable(c) : on_readable(c))) release(c);
      }
    }
  }
}
