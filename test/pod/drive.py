"""Drive a command on a terminal: drive.py STEPS COMMAND…  STEPS is a JSON list of
{"expect": text} (wait until the output since the last match holds it), {"send": text}, {"resize": [rows, columns]}
and {"kill": signal}. Prints {"status": exit code, "output": all output, "missed": the text that never came}."""
import fcntl, json, os, pty, re, select, signal, struct, sys, termios, time

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
output, at, missed = "", 0, None


def more(timeout):
    global output
    if not select.select([fd], [], [], timeout)[0]:
        return False
    try:
        data = os.read(fd, 65536)
    except OSError:
        return False
    output += data.decode(errors="replace")
    return bool(data)


for step in steps:
    if "expect" in step:
        deadline = time.time() + 60
        while missed is None:
            found = output.find(step["expect"], at)
            if found >= 0:
                at = found + len(step["expect"])
                break
            if time.time() > deadline:
                missed = step["expect"]
            more(0.1)
    if missed is not None:
        break
    if "send" in step:
        os.write(fd, step["send"].encode())
    if "resize" in step:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *step["resize"], 0, 0))
    if "kill" in step:
        os.kill(pid, step["kill"])
deadline = time.time() + (60 if missed is None else 0)
status = None
while time.time() < deadline:
    more(0.05)
    done, raw = os.waitpid(pid, os.WNOHANG)
    if done:
        status = os.waitstatus_to_exitcode(raw)
        while more(0.05):
            pass
        break
else:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(json.dumps({"status": status, "output": output, "missed": missed}))
