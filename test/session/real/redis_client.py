"""
Redis with its files, one client in a transaction, one that watches, one that is subscribed: by a unix socket, or with
an address as argument by TCP.
"""
import os, subprocess, sys, time
from client import Connection, wrong

folder = os.environ["F"]
where = (sys.argv[1], 6379) if len(sys.argv) > 1 else folder + "/redis.sock"
server = subprocess.Popen(
    ["redis-server", "--dir", folder, *(["--bind", where[0]] if len(sys.argv) > 1 else ["--port", "0", "--unixsocket", where]), "--appendonly", "yes",
     "--appendfsync", "always", "--save", "2 10", "--logfile", folder + "/redis.log"])


class Client(Connection):
    def __init__(self):
        super().__init__(where)

    def send(self, *words):
        self.socket.sendall(b"*%d\r\n" % len(words)
                            + b"".join(b"$%d\r\n%s\r\n" % (len(str(w)), str(w).encode()) for w in words))

    def answer(self):
        line = self.file.readline().decode().strip()
        kind, rest = line[:1], line[1:]
        if kind == ":":
            return int(rest)
        if kind == "$":
            return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == "*":
            return None if rest == "-1" else [self.answer() for _ in range(int(rest))]
        return rest

    def call(self, *words):
        self.send(*words)
        return self.answer()


writer, listener, watcher = Client(), Client(), Client()
listener.call("subscribe", "news")
watcher.call("watch", "count")
for turn in range(1, sys.maxsize):
    writer.call("multi")
    if writer.call("incr", "count") != "QUEUED":
        wrong("not in a transaction")
    time.sleep(0.02)
    writer.call("rpush", "list", turn)
    writer.call("publish", "news", turn)
    time.sleep(0.02)
    result = writer.call("exec")
    if result != [turn, turn, 1]:
        wrong("exec", result, turn)
    news = listener.answer()
    if news != ["message", "news", str(turn)]:
        wrong("news", news, turn)
    if turn % 10 == 0:
        # What it watches was changed by another, so its transaction does nothing.
        watcher.call("multi")
        watcher.call("set", "count", 0)
        if watcher.call("exec") is not None:
            wrong("watch")
        watcher.call("watch", "count")
    if writer.call("lindex", "list", turn // 2) != str(turn // 2 + 1) or server.poll() is not None:
        wrong("list")
    print("round", turn, flush=True)
