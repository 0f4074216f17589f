"""nginx with three workers, and clients that keep their connections: it counts what came through each."""
import os, subprocess, sys, time
from client import Connection, wrong

folder = os.environ["F"]
temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
user = "user nobody nogroup;" if os.getuid() == 0 else ""
page = bytes(range(256)) * 1200
with open(folder + "/page", "wb") as file:
    file.write(page)
with open(folder + "/nginx.conf", "w") as file:
    file.write(f"""daemon off; worker_processes 3; pid {folder}/nginx.pid; error_log {folder}/nginx.log; {user}
events {{ worker_connections 64; }}
http {{ access_log off; {temporary} keepalive_requests 10000000; keepalive_timeout 3600; sendfile on;
  server {{ listen unix:{folder}/nginx.sock; root {folder};
    location = /count {{ return 200 "$connection $connection_requests"; }} }} }}""")
os.chmod(folder, 0o755)
server = subprocess.Popen(["nginx", "-c", folder + "/nginx.conf", "-e", folder + "/nginx.log"])


class Client(Connection):
    def __init__(self):
        super().__init__(folder + "/nginx.sock")
        self.connection = None
        self.requests = 0

    def ask(self, path):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        self.requests += 1

    def answer(self):
        status = self.file.readline()
        if not status.startswith(b"HTTP/1.1 200"):
            wrong("status", status)
        length = 0
        while (line := self.file.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return self.file.read(length)

    def check(self):
        connection, requests = self.answer().split()
        self.connection = self.connection or connection
        if connection != self.connection or int(requests) != self.requests:
            wrong("connection", connection, self.connection, requests, self.requests)


clients = [Client() for _ in range(6)]
for turn in range(1, sys.maxsize):
    for client in clients:
        client.ask("/count")
    for client in clients:
        client.check()
    # Longer than what a socket holds: the dump finds it on its way.
    slow = clients[turn % len(clients)]
    slow.ask("/page")
    time.sleep(0.02)
    if slow.answer() != page or server.poll() is not None:
        wrong("page")
    print("round", turn, flush=True)
