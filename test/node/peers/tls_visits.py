"""Many short connections over TLS to the echo server under test: port, CA file, how many, how many at once.

Prints the name in the certificate of each, and at the end how many failed, with the first failure.
"""
import queue
import socket
import ssl
import sys
import threading

port, ca, count, workers = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context = ssl.create_default_context(cafile=ca)
turns = queue.SimpleQueue()
for turn in range(count):
    turns.put(turn)
lock = threading.Lock()
failures = []


def visit():
    with socket.create_connection(("127.0.0.1", port)) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as connection:
            connection.sendall(b"hello")
            received = b""
            while len(received) < 5:
                received += connection.recv(5 - len(received))
            assert received == b"hello", received
            return dict(part[0] for part in connection.getpeercert()["subject"])["commonName"]


def work():
    while True:
        try:
            turns.get_nowait()
        except queue.Empty:
            return
        try:
            line = visit()
        except Exception as error:
            failures.append(repr(error))
            continue
        with lock:
            print(line, flush=True)


threads = [threading.Thread(target=work) for _ in range(workers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"failed: {len(failures)} {failures[:1]}")
