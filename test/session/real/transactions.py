"""Python: a thread writes transactions into a sqlite database (WAL), held open for a while; another reads beside it."""
import os, sqlite3, sys, threading, time
from client import wrong

path = os.environ["F"] + "/database"


def open_database():
    database = sqlite3.connect(path, isolation_level=None, timeout=60)
    database.execute("pragma synchronous=off")
    return database


writer = open_database()
writer.execute("pragma journal_mode=wal")
writer.execute("create table numbers(n integer)")
committed = 0


def read():
    database = open_database()
    last = 0
    while True:
        # A reader sees whole transactions, and never an older one than before.
        count, most = database.execute("select count(*), coalesce(max(n), 0) from numbers").fetchone()
        if count != most or count % 5 or count < last:
            wrong("reader", count, most, last)
        last = count
        time.sleep(0.005)


threading.Thread(target=read, daemon=True).start()
for turn in range(1, sys.maxsize):
    writer.execute("begin immediate")
    for step in range(5):
        committed += 1
        writer.execute("insert into numbers values (?)", (committed,))
        time.sleep(0.01)
    writer.execute("commit")
    if turn % 20 == 0 and writer.execute("pragma integrity_check").fetchone() != ("ok",):
        wrong("integrity")
    print("round", turn, flush=True)
