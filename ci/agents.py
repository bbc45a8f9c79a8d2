#!/usr/bin/env python3
"""Ships logs with rsyslog and docs/forwarding/rsyslog.conf, kills both sides, and checks what arrived.

`agents.py ship COMMAND WORKDIR` is what `ci/agents` runs; COMMAND is tracing-audit. `agents.py receive PROTOCOL PORT FILE`
is the receiver. Needs only the standard library and rsyslogd."""

import collections
import fcntl
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

RECIPE = pathlib.Path(__file__).resolve().parent.parent / "docs/forwarding/rsyslog.conf"
RSYSLOGD = "/usr/sbin/rsyslogd"
MAX_LINE = 60 * 1024
KILLS = 4


# -- the receiver ------------------------------------------------------------------------------------------------------


class Stream:
    """The bytes of a connection."""

    def __init__(self, connection, before_reading):
        self.connection, self.before_reading, self.buffer = connection, before_reading, b""

    def more(self):
        self.before_reading()
        data = self.connection.recv(1 << 16)
        if not data:
            raise EOFError
        self.buffer += data

    def until(self, delimiters):
        while True:
            for at, byte in enumerate(self.buffer[:64]):
                if byte in delimiters:
                    word, self.buffer = self.buffer[:at], self.buffer[at:]
                    return word
            self.more()

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data


def receive_octets(stream, keep, _sync):
    """Receives RFC 6587: the length, a space, the message. There is no answer."""
    while True:
        length = int(stream.until(b" "))
        stream.take(1)
        keep(stream.take(length))


def receive_relp(stream, keep, sync):
    """Receives RELP: number, command, length, data, line feed. Each is acknowledged when it is durable."""
    while True:
        number = stream.until(b" ")
        stream.take(1)
        command = stream.until(b" ")
        stream.take(1)
        length = int(stream.until(b" \n"))
        data = stream.take(1 + length)[1:] if length else b""
        stream.take(1)
        answer = b"200 OK"
        if command == b"open":
            answer += b"\nrelp_version=0\nrelp_software=test\ncommands=syslog"
        elif command == b"syslog":
            keep(data)
            sync()
        stream.connection.sendall(b"%s rsp %d %s\n" % (number, len(answer), answer))
        if command == b"close":
            return


def receive(protocol, port, path):
    file, lock = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), threading.Lock()

    def keep(message):
        with lock:
            os.write(file, message + b"\n")

    def sync():
        os.fdatasync(file)

    def serve(connection):
        try:
            {"tcp": receive_octets, "relp": receive_relp}[protocol](Stream(connection, sync), keep, sync)
        except (EOFError, ConnectionError):
            connection.close()

    listener = socket.create_server(("127.0.0.1", int(port)))
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


# -- a writer of long lines --------------------------------------------------------------------------------------------


class LongChain:
    """A chain of lines of any length, in the format of docs/format.md."""

    def __init__(self, log, number, identity):
        self.log, self.number, self.id = log, number, identity
        self.seq, self.hash, self.segment, self.after, self.file = 0, "0" * 64, 0, [], None
        # Held so that no other writer continues this chain.
        control = log / "control"
        control.mkdir(mode=0o700, exist_ok=True)
        self.lock = os.open(control / f"chain-{number:03}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def line(self, kind, members, length=0):
        self.seq += 1
        stamp = "2026-11-29T08:00:00.%09dZ" % self.seq
        record = {"seq": self.seq, "ts": stamp, "kind": kind, **members, "durable": self.seq - 1, "_prev_hash": self.hash}
        if length:
            # The line is 76 bytes longer than the body: the hash and the line feed, less one bracket.
            room = length - 76 - len(self.encode(record))
            record["fields"]["dump"] = "é" * (room // 2) + "x" * (room % 2)
        body = self.encode(record)
        self.hash = hashlib.sha256(b"\0" + body).hexdigest()
        line = body[:-1] + b',"_hash":"' + self.hash.encode() + b'"}\n'
        self.file.write(line)
        self.file.flush()
        return stamp, line

    @staticmethod
    def encode(record):
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()

    def begin_segment(self):
        if self.file:
            last = "2026-11-29T08:00:00.%09dZ" % self.seq
            self.after = [{"segment": self.segment, "bytes": self.file.tell(), "from": self.first, "to": last}]
            self.file.close()
        self.segment += 1
        self.file = open(self.log / f"audit-{self.number:03}-{self.segment:08}.jsonl", "xb")
        segment = {
            "format": 1, "id": self.id, "chain": f"{self.number:03}", "segment": self.segment, "after": self.after,
            "chains": {},
        }
        self.first, _ = self.line("segment", {"segment": segment})
        if self.segment == 1:
            self.line("open", {"open": {"writer": "9e107d9d372bb682", "service": "long", "host": "test", "pid": 1,
                "machine": "9e107d9d372bb683", "version": "0.1.0", "flush_mode": "", "filesystem": "ext4", "chains": {}}})

    def event(self, length):
        members = {"severity": "routine", "level": "INFO", "action": "export", "actor": "mia", "fields": {"dump": ""}}
        return self.line("event", members, length)[1]

    def close(self):
        self.line("close", {"close": {"events": self.seq, "chains": {}}})
        self.file.close()


# -- both sides --------------------------------------------------------------------------------------------------------


def fail(why):
    sys.exit(f"agents: {why}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def substitute(text, old, new):
    if old not in text:
        fail(f"{RECIPE} does not have {old}")
    return text.replace(old, new)


class Run:
    """A log, rsyslogd with the recipe, and a receiver, in a directory of their own."""

    def __init__(self, command, directory, protocol="tcp", default_size=False):
        self.command, self.directory, self.protocol = command, directory, protocol
        self.log, self.state, self.arrived_path = directory / "log", directory / "state", directory / "arrived"
        for path in (directory, self.log, self.state):
            path.mkdir()
        self.port, self.processes = free_port(), {}
        recipe = RECIPE.read_text()
        if protocol == "relp":
            active, relp = recipe.index("    action(type"), recipe.index("    # With ack")
            recipe = recipe[:active] + recipe[relp:]
            recipe = re.sub(r'^    #(module|action|    action)', r"    \1", recipe, flags=re.MULTILINE)
            # `module` belongs outside a ruleset.
            recipe = substitute(recipe, '    module(load="omrelp")\n', "")
            recipe = substitute(recipe, 'module(load="imfile")', 'module(load="imfile")\nmodule(load="omrelp")')
        recipe = substitute(recipe, "/var/lib/myapp/audit-log", str(self.log))
        recipe = substitute(recipe, "/var/spool/rsyslog", str(self.state))
        recipe = substitute(recipe, "audit.example", "127.0.0.1")
        recipe = substitute(recipe, 'port="6514"', f'port="{self.port}"')
        if default_size:
            recipe = substitute(recipe, 'global(maxMessageSize="64k")', "")
        # The messages of rsyslog itself, which otherwise go to syslog(3).
        recipe += f'\nglobal(processInternalMessages="on")\naction(type="omfile" file="{directory / "said"}")\n'
        (directory / "rsyslog.conf").write_text(recipe)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def start(self, name):
        if name == "receiver":
            arguments = [sys.executable, __file__, "receive", self.protocol, str(self.port), str(self.arrived_path)]
        else:
            (self.directory / "pid").unlink(missing_ok=True)
            arguments = [RSYSLOGD, "-n", "-i", str(self.directory / "pid"), "-f", str(self.directory / "rsyslog.conf")]
        with open(self.directory / f"{name}.err", "ab") as errors:
            self.processes[name] = subprocess.Popen(arguments, stderr=errors, stdout=errors)
        if name == "receiver":
            wait(lambda: self.is_listening(), 10, "the receiver does not listen")

    def is_listening(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, name, how=signal.SIGKILL):
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(20)

    def send_again(self):
        self.stop("rsyslogd")
        for state in self.state.glob("imfile-state:*"):
            state.unlink()
        self.start("rsyslogd")

    def arrived(self):
        # An incomplete last line was torn by the kill of the receiver.
        try:
            return self.arrived_path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []

    def lines(self):
        files = sorted(self.log.glob("audit-*.jsonl"))
        return [line for file in files for line in file.read_bytes().split(b"\n")[:-1]]

    def missing(self, lines=None):
        arrived = set(self.arrived())
        return [line for line in lines or self.lines() if line not in arrived]

    def wait_for_all(self, seconds):
        """Waits until all present lines have arrived, or nothing came for 3 seconds. Returns the missing lines."""
        end, size, quiet, lines = time.monotonic() + seconds, -1, time.monotonic(), self.lines()
        while time.monotonic() < end:
            now = self.arrived_path.stat().st_size if self.arrived_path.exists() else 0
            if now != size:
                size, quiet = now, time.monotonic()
            elif time.monotonic() - quiet > 3:
                break
            if not self.missing(lines):
                break
            time.sleep(0.3)
        return self.missing(lines)

    def wait_for_more(self, count):
        before = len(self.arrived())

        def are_there():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    fail(f"{name} ended: {(self.directory / f'{name}.err').read_text()}")
            return len(self.arrived()) >= before + count

        wait(are_there, 30, f"{count} more lines do not arrive")


def wait(condition, seconds, why):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            fail(why)
        time.sleep(0.05)


def write_long_lines(log, stopped):
    """Writes segments with lines of all lengths up to the longest, until `stopped`."""
    chain = LongChain(log, 100, "5f1c2a9be07d4c3388a1d6e2b94f7013")
    lengths = [MAX_LINE, MAX_LINE - 1, 8 << 10, (8 << 10) + 1, 16 << 10, 32 << 10, 600, 50_000, MAX_LINE]
    while True:
        chain.begin_segment()
        for length in lengths:
            chain.event(length)
            if stopped.wait(0.03):
                chain.close()
                return


def kill_both(run):
    """Kills rsyslogd and the receiver while a log grows. Returns how many lines each kill lost."""
    run.start("receiver")
    run.start("rsyslogd")
    demo = subprocess.Popen([run.command, "demo", str(run.log), "--events", "3000"], stdout=subprocess.DEVNULL)
    wait(lambda: any(run.log.glob("audit-*")), 20, "the demo does not begin")
    stopped = threading.Event()
    writer = threading.Thread(target=write_long_lines, args=(run.log, stopped))
    writer.start()
    try:
        for _ in range(KILLS):
            run.wait_for_more(150)
            run.stop("rsyslogd")
            run.start("rsyslogd")
        if demo.wait(60) != 0:
            fail("the demo failed")
        by_rsyslogd = run.wait_for_all(30)
        # The receiver no longer reads: what rsyslogd sends now stays in the buffers of TCP.
        run.processes["receiver"].send_signal(signal.SIGSTOP)
        time.sleep(1)
        run.stop("receiver")
        time.sleep(2)
        run.start("receiver")
        run.wait_for_more(30)
    finally:
        stopped.set()
        writer.join()
    return len(by_rsyslogd), len(set(run.wait_for_all(30)) - set(by_rsyslogd))


def verify(run):
    """Checks that every line arrived byte for byte, and that the lines without repeats are a copy that verifies."""
    lines, arrived = run.lines(), run.arrived()
    known, times = set(lines), collections.Counter(arrived)
    strange = [line for line in times if line not in known]
    if strange:
        fail(f"{len(strange)} messages are not lines of the log, e.g. {strange[0][:200]}")
    if run.missing():
        fail(f"{len(run.missing())} lines are missing")
    longest = max(len(line) + 1 for line in lines)
    if longest != MAX_LINE:
        fail(f"the longest line has {longest} bytes")
    copy = run.directory / "copy"
    # Each chain in its order; the link of a line shows which chain it belongs to.
    number = re.compile(rb'\{"seq":(\d+),')
    copy.write_bytes(b"".join(line + b"\n" for line in sorted(times, key=lambda line: int(number.match(line)[1]))))
    for what in (str(run.log), f"file:{copy}"):
        verdict = subprocess.run([run.command, "verify", "--quiet", what], stdout=subprocess.PIPE, text=True)
        if verdict.returncode != 0:
            fail(f"verify {what}: {verdict.stdout}")
    segments = len(list(run.log.glob("audit-*.jsonl")))
    print(f"   {len(lines)} lines of {segments} segments, up to {longest} bytes, all there byte for byte, and they verify;"
        f" {len(arrived) - len(times)} came more than once")


def ship(command, workdir):
    print(f"rsyslog to TCP: rsyslogd killed {KILLS} times, then the receiver with lines in the buffers of TCP")
    with Run(command, workdir / "tcp") as run:
        by_rsyslogd, by_receiver = kill_both(run)
        if by_rsyslogd:
            fail(f"the kills of rsyslogd lost {by_rsyslogd} lines")
        if not by_receiver:
            fail("the kill of the receiver lost nothing, so agents.md is wrong about TCP")
        print(f"   lost by the kill of the receiver, which TCP does not report: {by_receiver} lines; they are sent again")
        # As agents.md recommends in this case.
        run.send_again()
        run.wait_for_all(30)
        verify(run)

    print("rsyslog to RELP: the same")
    with Run(command, workdir / "relp", "relp") as run:
        by_rsyslogd, by_receiver = kill_both(run)
        if by_receiver:
            fail(f"the kill of the receiver lost {by_receiver} lines")
        print(f"   lost by the kills of rsyslogd: {by_rsyslogd} lines; they are sent again")
        run.send_again()
        run.wait_for_all(30)
        verify(run)

    print("rsyslog to TCP, at odd moments")
    with Run(command, workdir / "odd") as run:
        odd_moments(run)

    print("rsyslog with maxMessageSize at its default")
    with Run(command, workdir / "default", default_size=True) as run:
        is_cut(run)


def odd_moments(run):
    """Tests a kill while a file is short, a stop while the receiver is down, removed files, and reused inodes."""
    def all_there(moment):
        missing = run.wait_for_all(20)
        if missing:
            fail(f"{moment}: {len(missing)} lines are missing")

    run.start("receiver")
    run.start("rsyslogd")
    chain = LongChain(run.log, 0, "5f1c2a9be07d4c3388a1d6e2b94f7013")
    chain.begin_segment()
    chain.begin_segment()
    all_there("the first lines")
    # rsyslog names a position by the inode, and from 512 bytes on also by the first 512 bytes.
    first_line = chain.file.tell()
    if first_line >= 512:
        fail(f"the first line has {first_line} bytes, so this test proves nothing")
    run.stop("rsyslogd")
    chain.event(700)
    run.start("rsyslogd")
    all_there("a file that was short at the kill")

    # An orderly stop counts the lines that are being sent as sent; a kill does not.
    for how in (signal.SIGKILL, signal.SIGTERM):
        run.stop("receiver")
        chain.event(50_000)
        time.sleep(1)
        run.stop("rsyslogd", how)
        chain.event(40_000)
        run.start("rsyslogd")
        time.sleep(1)
        run.start("receiver")
        if how == signal.SIGKILL:
            all_there("a kill while the receiver was down")
    lost = len(run.wait_for_all(20))
    if not lost:
        fail("SIGTERM while the receiver was down lost nothing, so agents.md is wrong")
    print(f"   lost by SIGTERM while the receiver was down: {lost} line; it is sent again")
    run.send_again()
    all_there("what is sent again")

    run.stop("rsyslogd")
    chain.begin_segment()
    inodes = set()
    for file in sorted(run.log.glob("audit-*.jsonl"))[:2]:
        inodes.add(file.stat().st_ino)
        file.unlink()
    again = 0
    for _ in range(8):
        chain.begin_segment()
        again += os.fstat(chain.file.fileno()).st_ino in inodes
        chain.event(900)
    run.start("rsyslogd")
    all_there("inodes that came again")
    for file in sorted(run.log.glob("audit-*.jsonl"))[:5]:
        file.unlink()
    chain.begin_segment()
    chain.close()
    all_there("files removed while rsyslogd ran")
    states = len(list(run.state.glob("imfile-state:*")))
    print(f"   all there; {again} inodes were reused; {states} positions for {len(list(run.log.glob('audit-*')))} files")


def is_cut(run):
    """Shows that without the setting of the recipe a long line is cut, and the receiver cannot notice."""
    run.start("receiver")
    run.start("rsyslogd")
    chain = LongChain(run.log, 0, "5f1c2a9be07d4c3388a1d6e2b94f7013")
    chain.begin_segment()
    long = chain.event(MAX_LINE)[:-1]
    chain.close()
    run.wait_for_more(4)
    pieces = [message for message in run.arrived() if message not in run.lines()]
    if long in run.arrived() or len(pieces) != 1 or not long.startswith(pieces[0]):
        fail("a long line was not cut with the default, so agents.md is wrong")
    print(f"   a line of {len(long)} bytes arrived with {len(pieces[0])}, and as if it were whole")
    said = (run.directory / "said").read_text() if (run.directory / "said").exists() else ""
    print(f"   in its own log: {(re.search('message too long [^,]*', said) or ['nothing'])[0]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["receive"]:
        receive(*sys.argv[2:])
    else:
        # rsyslogd changes its working directory.
        ship(str(pathlib.Path(sys.argv[2]).resolve()), pathlib.Path(sys.argv[3]).resolve())
