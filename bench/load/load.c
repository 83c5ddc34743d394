/*
 * The load generator: one process, one epoll loop, no threads. It prints one JSON object on stdout.
 *
 *   load MODE --port N [--connections N] [--size BYTES] [--in-flight N] [--seconds S] [--bytes N]
 *
 *   pingpong  each connection sends a message of --size bytes and waits for its echo, for --seconds
 *   lines     each connection keeps --in-flight lines of --size bytes (with "\n") on their way, for --seconds
 *   send      one connection sends --bytes in writes of --size; the server answers with the number it counted, and "\n"
 *   receive   one connection counts what the server sends, until the end of input
 *   requests  --connections at a time: connect, send a line of --size bytes, read --size bytes and the end of input,
 *             close; for --seconds
 *   idle      opens --connections, prints {"ready": N}, holds them until SIGTERM
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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
#include <time.h>
#include <unistd.h>

#define READ_SIZE (256 * 1024)
#define MAX_EVENTS 512
/* Connections are made from several loopback addresses, so that there are ports enough. */
#define SOURCES 64

struct connection {
  int fd;
  bool connected;
  bool writable_wanted;
  uint32_t index;
  uint64_t sent;     /* bytes given to the kernel */
  uint64_t due;      /* bytes that should have been sent by now */
  uint64_t received; /* bytes of the replies */
  uint64_t began;    /* nanoseconds: when the message or the connection began */
};

static const char *mode;
static int port;
static uint32_t connections = 1;
static size_t size = 64;
static uint32_t in_flight = 1;
static double seconds = 1;
static uint64_t total_bytes = 0;

static int epoll_fd;
static struct sockaddr_in server;
/* Repeats with a period of `size`, and is long enough to be written from any phase. */
static char *pattern;
static size_t pattern_length;
static char *buffer;
static uint64_t messages = 0, bytes = 0, errors = 0, opened = 0;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* Latencies in buckets of 1/16 of a power of two: at most 6 % off. */
#define BUCKETS (64 * 16)
static uint64_t histogram[BUCKETS];

static void record(uint64_t nanoseconds) {
  if (nanoseconds < 16) nanoseconds = 16;
  int exponent = 63 - __builtin_clzll(nanoseconds);
  histogram[exponent * 16 + ((nanoseconds >> (exponent - 4)) & 15)]++;
}

static double percentile(double fraction) {
  uint64_t total = 0, seen = 0;
  for (int i = 0; i < BUCKETS; i++) total += histogram[i];
  if (total == 0) return 0;
  for (int i = 0; i < BUCKETS; i++) {
    seen += histogram[i];
    if ((double)seen >= fraction * (double)total) {
      int exponent = i / 16;
      return (double)((uint64_t)(16 + i % 16) << (exponent - 4)) / 1000;
    }
  }
  return 0;
}

static void report(double elapsed) {
  printf("{\"mode\":\"%s\",\"connections\":%llu,\"messages\":%llu,\"bytes\":%llu,\"errors\":%llu,\"seconds\":%.6f,"
         "\"p50\":%.1f,\"p99\":%.1f}\n",
         mode, (unsigned long long)opened, (unsigned long long)messages, (unsigned long long)bytes,
         (unsigned long long)errors, elapsed, percentile(0.5), percentile(0.99));
  fflush(stdout);
}

static int open_socket(uint32_t index) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  int yes = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
  struct sockaddr_in source = {.sin_family = AF_INET};
  source.sin_addr.s_addr = htonl(0x7f000001u + index % SOURCES);
  if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0) die("bind");
  return fd;
}

static void watch(struct connection *c, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll_fd, operation, c->fd, &event) < 0) die("epoll_ctl");
}

static void begin_connect(struct connection *c) {
  c->fd = open_socket(c->index);
  c->connected = false;
  c->writable_wanted = true;
  c->sent = c->due = c->received = 0;
  c->began = now();
  if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) die("connect");
  watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

/* Whether the connect has succeeded. */
static bool finish_connect(struct connection *c) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) {
    errno = error;
    return false;
  }
  c->connected = true;
  opened++;
  return true;
}

/* Sends what is due. False when the connection failed. */
static bool flush_due(struct connection *c) {
  while (c->sent < c->due) {
    size_t phase = c->sent % size;
    uint64_t rest = c->due - c->sent;
    size_t length = rest < pattern_length - phase ? (size_t)rest : pattern_length - phase;
    ssize_t n = send(c->fd, pattern + phase, length, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return false;
      break;
    }
    c->sent += (uint64_t)n;
  }
  bool wanted = c->sent < c->due;
  if (wanted != c->writable_wanted) {
    c->writable_wanted = wanted;
    watch(c, EPOLL_CTL_MOD, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }
  return true;
}

/* Whether the bytes are what the pattern has at this place of the stream. */
static bool expected(uint64_t offset, const char *data, size_t length) {
  while (length > 0) {
    size_t phase = offset % size;
    size_t part = length < pattern_length - phase ? length : pattern_length - phase;
    if (memcmp(data, pattern + phase, part) != 0) return false;
    data += part;
    offset += part;
    length -= part;
  }
  return true;
}

/* pingpong and lines: replies are answered with as many messages. */
static void echo_load(void) {
  struct connection *all = calloc(connections, sizeof *all);
  for (uint32_t i = 0; i < connections; i++) {
    all[i].index = i;
    begin_connect(&all[i]);
  }
  struct epoll_event events[MAX_EVENTS];
  uint32_t waiting = connections;
  while (waiting > 0) {
    int count = epoll_wait(epoll_fd, events, MAX_EVENTS, 10000);
    if (count == 0) { errno = ETIMEDOUT; die("connect"); }
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c->connected) continue;
      if (!finish_connect(c)) die("connect");
      c->writable_wanted = false;
      watch(c, EPOLL_CTL_MOD, EPOLLIN);
      waiting--;
    }
  }
  uint64_t start = now(), end = start + (uint64_t)(seconds * 1e9), time = start;
  for (uint32_t i = 0; i < connections; i++) {
    all[i].due = (uint64_t)in_flight * size;
    all[i].began = time;
    if (!flush_due(&all[i])) die("send");
  }
  while (time < end) {
    int count = epoll_wait(epoll_fd, events, MAX_EVENTS, 1 + (int)((end - time) / 1000000));
    time = now();
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t n = recv(c->fd, buffer, READ_SIZE, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) {
          if (n == 0) errno = ECONNRESET;
          die("recv");
        }
        if (!expected(c->received, buffer, (size_t)n)) errors++;
        uint64_t before = c->received / size;
        c->received += (uint64_t)n;
        bytes += (uint64_t)n;
        uint64_t whole = c->received / size - before;
        if (whole > 0) {
          messages += whole;
          if (in_flight == 1) {
            uint64_t replied = now();
            record(replied - c->began);
            c->began = replied;
          }
          c->due += whole * size;
        }
      }
      if (!flush_due(c)) die("send");
    }
  }
  double elapsed = (double)(now() - start) / 1e9;
  /* None was forgotten. */
  for (uint32_t i = 0; i < connections; i++) {
    if (all[i].received < size) errors++;
  }
  report(elapsed);
}

static int connect_one(void) {
  struct connection c = {0};
  c.fd = open_socket(0);
  fcntl(c.fd, F_SETFL, fcntl(c.fd, F_GETFL) & ~O_NONBLOCK);
  struct timeval stalled = {.tv_sec = 30};
  setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &stalled, sizeof stalled);
  setsockopt(c.fd, SOL_SOCKET, SO_SNDTIMEO, &stalled, sizeof stalled);
  if (connect(c.fd, (struct sockaddr *)&server, sizeof server) < 0) die("connect");
  opened = 1;
  return c.fd;
}

static void send_load(void) {
  int fd = connect_one();
  uint64_t start = now();
  uint64_t sent = 0;
  while (sent < total_bytes) {
    size_t length = total_bytes - sent < size ? (size_t)(total_bytes - sent) : size;
    ssize_t n = send(fd, pattern, length, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("send");
    sent += (uint64_t)n;
  }
  char answer[32] = {0};
  size_t length = 0;
  while (length < sizeof answer - 1 && memchr(answer, '\n', length) == NULL) {
    ssize_t n = recv(fd, answer + length, sizeof answer - 1 - length, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) die("recv");
    length += (size_t)n;
  }
  double elapsed = (double)(now() - start) / 1e9;
  bytes = strtoull(answer, NULL, 10);
  messages = bytes / size;
  if (bytes != total_bytes) errors++;
  close(fd);
  report(elapsed);
}

static void receive_load(void) {
  int fd = connect_one();
  uint64_t start = now();
  for (;;) {
    /* TCP drops the bytes without copying them: the count is all that is wanted. */
    ssize_t n = recv(fd, buffer, READ_SIZE, MSG_TRUNC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("recv");
    if (n == 0) break;
    bytes += (uint64_t)n;
  }
  messages = bytes / size;
  if (total_bytes != 0 && bytes != total_bytes) errors++;
  report((double)(now() - start) / 1e9);
  close(fd);
}

static void requests_load(void) {
  struct connection *all = calloc(connections, sizeof *all);
  uint32_t next_index = 0, active = 0;
  uint64_t start = now(), end = start + (uint64_t)(seconds * 1e9), time = start;
  for (; active < connections; active++) {
    all[active].index = next_index++;
    begin_connect(&all[active]);
  }
  struct epoll_event events[MAX_EVENTS];
  while (active > 0) {
    int count = epoll_wait(epoll_fd, events, MAX_EVENTS, 10000);
    if (count == 0) { errno = ETIMEDOUT; die("requests"); }
    time = now();
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      bool done = false;
      if (!c->connected) {
        if (!finish_connect(c)) {
          errors++;
          done = true;
        } else {
          c->due = size;
          if (!flush_due(c)) done = true, errors++;
        }
      } else {
        ssize_t n = recv(c->fd, buffer, READ_SIZE, 0);
        if (n > 0) {
          c->received += (uint64_t)n;
          bytes += (uint64_t)n;
        } else if (n == 0) {
          if (c->received == size) messages++, record(now() - c->began);
          else errors++;
          done = true;
        } else if (errno != EAGAIN && errno != EINTR) {
          errors++;
          done = true;
        }
      }
      if (!done) continue;
      close(c->fd);
      if (time < end) {
        c->index = next_index++;
        begin_connect(c);
      } else {
        active--;
      }
    }
  }
  report((double)(now() - start) / 1e9);
}

static void idle_load(void) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  struct connection *all = calloc(connections, sizeof *all);
  struct epoll_event events[MAX_EVENTS];
  /* No more at once than the shortest backlog among the servers takes. */
  const uint32_t batch = 100;
  uint64_t start = now();
  for (uint32_t first = 0; first < connections; first += batch) {
    uint32_t last = first + batch < connections ? first + batch : connections, waiting = last - first;
    for (uint32_t i = first; i < last; i++) {
      all[i].index = i;
      begin_connect(&all[i]);
    }
    while (waiting > 0) {
      int count = epoll_wait(epoll_fd, events, MAX_EVENTS, 10000);
      if (count == 0) { errno = ETIMEDOUT; die("connect"); }
      for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->connected || !finish_connect(c)) die("connect");
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
        waiting--;
      }
    }
  }
  printf("{\"ready\":%llu}\n", (unsigned long long)opened);
  fflush(stdout);
  int signal_number;
  sigwait(&signals, &signal_number);
  report((double)(now() - start) / 1e9);
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: load MODE --port N [--connections N] [--size N] [--in-flight N] [--seconds S] [--bytes N]\n");
    return 2;
  }
  mode = argv[1];
  for (int i = 2; i + 1 < argc; i += 2) {
    const char *name = argv[i], *value = argv[i + 1];
    if (strcmp(name, "--port") == 0) port = atoi(value);
    else if (strcmp(name, "--connections") == 0) connections = (uint32_t)strtoul(value, NULL, 10);
    else if (strcmp(name, "--size") == 0) size = strtoul(value, NULL, 10);
    else if (strcmp(name, "--in-flight") == 0) in_flight = (uint32_t)strtoul(value, NULL, 10);
    else if (strcmp(name, "--seconds") == 0) seconds = strtod(value, NULL);
    else if (strcmp(name, "--bytes") == 0) total_bytes = strtoull(value, NULL, 10);
    else {
      fprintf(stderr, "load: unknown option %s\n", name);
      return 2;
    }
  }
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  server.sin_family = AF_INET;
  server.sin_port = htons((uint16_t)port);
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  buffer = malloc(READ_SIZE);
  pattern_length = size * (size < READ_SIZE ? READ_SIZE / size + 1 : 1);
  pattern = malloc(pattern_length);
  for (size_t i = 0; i < pattern_length; i++) {
    size_t place = i % size;
    pattern[i] = place == size - 1 ? '\n' : (char)('a' + place % 26);
  }

  if (strcmp(mode, "pingpong") == 0) in_flight = 1, echo_load();
  else if (strcmp(mode, "lines") == 0) echo_load();
  else if (strcmp(mode, "send") == 0) send_load();
  else if (strcmp(mode, "receive") == 0) receive_load();
  else if (strcmp(mode, "requests") == 0) requests_load();
  else if (strcmp(mode, "idle") == 0) idle_load();
  else {
    fprintf(stderr, "load: unknown mode %s\n", mode);
    return 2;
  }
  return 0;
}
