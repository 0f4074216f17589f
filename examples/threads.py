#!/usr/bin/env python3
"""Threads, locks and a pipe to a child, checking themselves: something with more than one process to suspend.

    python3 examples/threads.py [--rounds N]

Four threads count under one lock; every round a number goes through a pipe to a child process, which sends back
its SHA-256 and how many it has seen. A lost or doubled message, a lost increment, a child that forgot, a clock
that went back: `threads: WRONG: ...`, status 1. Prints a line a second, and `threads: done` after --rounds.
"""
import hashlib
import os
import struct
import sys
import threading
import time

ROUNDS = int(sys.argv[sys.argv.index("--rounds") + 1]) if "--rounds" in sys.argv else 0
WORKERS = 4


def wrong(why):
    print(f"threads: WRONG: {why}", flush=True)
    os._exit(1)


def read_exactly(fd, length):
    data = b""
    while len(data) < length:
        piece = os.read(fd, length - len(data))
        if not piece:
            return None
        data += piece
    return data


def child(requests, answers):
    """Answers 8-byte numbers with a count and a digest; the count lives only in this process."""
    seen = 0
    while True:
        request = read_exactly(requests, 8)
        if request is None:
            os._exit(0)
        seen += 1
        os.write(answers, struct.pack("<Q", seen) + hashlib.sha256(request).digest())


def main():
    requests_out, requests_in = os.pipe()
    answers_out, answers_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(requests_in)
        os.close(answers_out)
        child(requests_out, answers_in)
    os.close(requests_out)
    os.close(answers_in)

    lock = threading.Lock()
    total = 0
    own = [0] * WORKERS

    def work(index):
        nonlocal total
        last = time.monotonic()
        while True:
            with lock:
                total += 1
                own[index] += 1
            now = time.monotonic()
            if now < last:
                wrong(f"the clock of thread {index} went back by {last - now} s")
            last = now
            time.sleep(0.001)

    for index in range(WORKERS):
        threading.Thread(target=work, args=(index,), daemon=True).start()

    sent = 0
    printed = time.monotonic()
    before = [0] * WORKERS
    while ROUNDS == 0 or sent < ROUNDS:
        sent += 1
        os.write(requests_in, struct.pack("<Q", sent))
        answer = read_exactly(answers_out, 40)
        if answer is None:
            wrong("the child is gone")
        (seen,) = struct.unpack("<Q", answer[:8])
        if seen != sent:
            wrong(f"the child has seen {seen} messages of {sent}")
        if answer[8:] != hashlib.sha256(struct.pack("<Q", sent)).digest():
            wrong(f"the answer to message {sent} is not its digest")
        with lock:
            if total != sum(own):
                wrong(f"the threads counted {sum(own)}, the total is {total}")
        if time.monotonic() - printed >= 1:
            printed = time.monotonic()
            with lock:
                for index in range(WORKERS):
                    if own[index] == before[index]:
                        wrong(f"thread {index} stands still")
                before = list(own)
                print(f"messages {sent} counted {total} pid {os.getpid()} child {pid}", flush=True)
        time.sleep(0.01)
    print("threads: done", flush=True)


main()
