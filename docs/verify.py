#!/usr/bin/env python3
"""Checks an audit log against docs/format.md, with nothing but Python's standard library (3.8 or later).

    python3 verify.py [--heads FILE] DIRECTORY [HEAD ...]

Prints the verdict, what stands in the log, what is wrong, what is worth knowing, and what could not be checked.
Changes nothing, and works on a log that is being written and on a copy of one. A HEAD is <chain>/<seq>:<hash>: a record
that was durable, kept where the owner of the log cannot write. FILE has one on each line; blank lines and # comments
may stand between them.

Exit code: 0 intact, 1 damaged, 2 could not check, 3 unclean: nothing durable is altered, but the log did not end in
order.

In reading order: a line (1); a piece of a file, checked by itself so that several can be at the same time (2); the
files of a chain and what counts of them (3); what follows what in a chain (4); reading a chain to its end (5); lock
files (6); what is damage (7); the report (8).
"""
import argparse, bisect, collections, hashlib, json, os, re, stat, sys
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # there are no such locks here
    fcntl = None

NAME = re.compile(r"audit-([0-9]{3})-([0-9]{8})\.jsonl")
LOCK_NAME = re.compile(r"chain-([0-9]{3})\.lock")
HEAD = re.compile(r"([0-9]{3})/([1-9][0-9]*):([0-9a-f]{64})")
ZEROS = "0" * 64
MAX_LINE = 60 * 1024
MAX_NUMBER = 2**64 - 1
PIECE = 1024 * 1024  # how many bytes of a file are checked at a time
LOOK_UP = 4 * PIECE  # how far behind its place a record is looked for
MAX_KEPT = 4096  # how much of a kind is kept of one chain, whatever stands in it
MAX_PRINTED = 20


class CannotCheck(Exception):
    """Why there is no verdict."""


# 1. A line (sections 2 to 4 of docs/format.md)

TAIL = re.compile(rb',"_prev_hash":"([0-9a-f]{64})","_hash":"([0-9a-f]{64})"\}')
TAIL_BYTES, HASH_BYTES = 156, 76  # of all of it, and of `,"_hash":"<64 digits>"}`
ESCAPE = re.compile(r"\\.")
FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
                       "\U000e0000-\U000e007f]")
PLAIN = bytes(range(0x20, 0x7F))
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z")
FORMAT = 1  # what this program can judge
DEPTH = 32
CONTROLS = ("segment", "open", "mark", "close", "gap", "unconfirmed", "recovery", "prune")


class Line(NamedTuple):
    """A line that is right in itself."""
    offset: int
    seq: int
    previous: str
    hash: str
    kind: str
    durable: int
    own: dict  # the object named like the kind, of the kinds that say something of their chain
    time: str


class Bad(NamedTuple):
    """Anything else."""
    offset: int
    why: str
    seq: int = None  # the number that the line gives itself, where only its hash is wrong
    is_unfinished: bool = False  # a line without end at the end of what counts of a file


def refuse(what):
    raise ValueError("is not a record: " + what)


def finite(text):
    return refuse("a number is too large") if abs(float(text)) == float("inf") else float(text)


def integer(text):  # -0 is none
    return int(text) if len(text) < 30 and text != "-0" else finite(text)


DECODER = json.JSONDecoder(parse_constant=refuse, parse_float=finite, parse_int=integer)


def count_members(value):
    """How many members the objects in a value have in all."""
    count, left = 0, [value]
    while left:
        value = left.pop()
        if type(value) is dict:
            count += len(value)
            value = value.values()
        left += [inner for inner in value if type(inner) is dict or type(inner) is list]
    return count


def deepest(outside):
    depth = most = 0
    for character in outside:
        depth += (character in "[{") - (character in "]}")
        most = max(most, depth)
    return most


def strict(line):
    """The object in a line, which is strict JSON; ValueError if it is not so."""
    text, special = line.decode(), line.translate(None, PLAIN)
    if special and FORBIDDEN.search(special.decode()):
        refuse("it has an unescaped control character")
    record, end = DECODER.raw_decode(text)
    # It is JSON, so backslashes stand in strings only, and every second quote ends one.
    outside = "".join((ESCAPE.sub("", text) if "\\" in text else text).split('"')[::2])
    if end < len(text) or " " in outside:
        refuse("it has white space outside of strings, or something follows the object")
    members, fields = outside.count(":"), record.get("fields")
    if members != len(record) + (len(fields) if type(fields) is dict else 0) and members != count_members(record):
        refuse("a member occurs twice in an object")
    if outside.count("{") + outside.count("[") > DEPTH and deepest(outside) > DEPTH:
        refuse("objects or lists are nested too deeply")
    if "\\u" in text:
        json.dumps(record, ensure_ascii=False).encode()  # refuses lone surrogates
    return record


def whole(value, least=0, most=MAX_NUMBER):
    return type(value) is int and least <= value <= most


def digits(value, count):
    return type(value) is str and re.fullmatch("[0-9a-f]{%d}" % count, value) is not None


def three_digits(value):
    return type(value) is str and re.fullmatch("[0-9]{3}", value) is not None


def is_readable(kind, own):
    """Whether the object named like the kind is what section 4 says, as far as anything here depends on it."""
    if type(own) is not dict:
        return False
    if kind == "gap":
        return type(own.get("reason")) is str and whole(own.get("critical")) and whole(own.get("routine"))
    if kind == "recovery":
        return type(own.get("cause")) is str
    if kind == "unconfirmed":
        records = own.get("records")
        return (type(own.get("reason")) is str and type(records) is list
                and all(type(pair) is list and len(pair) == 2 and whole(pair[0], 1) and whole(pair[1], pair[0])
                        for pair in records)
                and ("chain" not in own or three_digits(own["chain"]) and digits(own.get("id"), 32)))
    if kind == "prune":
        files = own.get("files")
        return (whole(own.get("through")) and digits(own.get("hash"), 64) and type(own.get("reason")) is str
                and type(files) is list and len(files) > 1 and all(whole(file, 0, 2**32 - 1) for file in files[:2]))
    if kind == "segment":
        if is_later(own):
            return True
        pruned = own.get("pruned", {"through": 0, "hash": ZEROS})
        if not (whole(own.get("format"), 1) and digits(own.get("id"), 32) and three_digits(own.get("chain"))
                and whole(own.get("segment"), 0, 2**32 - 1)
                and type(own.get("after")) is list and all(map(is_readable_claim, own["after"]))
                and type(pruned) is dict and whole(pruned.get("through")) and digits(pruned.get("hash"), 64)):
            return False
    chains = own.get("chains")
    return type(chains) is dict and all(
        three_digits(chain) and type(seen) is dict and digits(seen.get("id"), 32) and whole(seen.get("seq"))
        and digits(seen.get("hash"), 64) for chain, seen in chains.items())


def is_readable_claim(claim):
    """An entry of `after`. A number `from` names files in a row that count nothing."""
    if not (type(claim) is dict and whole(claim.get("segment"), 0, 2**32 - 1) and whole(claim.get("bytes"))):
        return False
    return first_of_row(claim) is None or claim["bytes"] == 0 and claim["from"] <= claim["segment"]


def first_of_row(claim):
    return claim["from"] if whole(claim.get("from"), 0, 2**32 - 1) else None


def is_later(own):
    """Whether a `segment` line begins a segment of a later format, which this program must not judge."""
    number = own.get("format")
    return type(number) in (int, float) and number > FORMAT and (type(number) is int or number > 2**64)


def parse(offset, line):
    """The line in these bytes, which have no line feed."""
    if len(line) >= MAX_LINE:
        return Bad(offset, f"is not a record: it is longer than 60 KiB ({len(line) + 1} bytes)")
    tail = TAIL.fullmatch(line, max(len(line) - TAIL_BYTES, 0))
    if not tail or not line.startswith(b'{"seq":'):
        return Bad(offset, "is not a record: it does not begin with its number or end with its hashes")
    try:
        record = strict(line)
    except (ValueError, RecursionError) as error:
        return Bad(offset, str(error) if type(error) is ValueError else "is not a record: it is not strict JSON")
    seq, durable, kind, time = record["seq"], record.get("durable", 0), record.get("kind"), record.get("ts")
    if not whole(seq, 1) or not whole(durable):
        return Bad(offset, "is not a record: its number or its durable mark is not a whole number")
    if hashlib.sha256(b"\0" + line[:-HASH_BYTES] + b"}").hexdigest() != tail[2].decode():
        return Bad(offset, "has another hash than it says: the hash does not match", seq)
    own = None
    if type(kind) is not str:
        kind = None
    elif kind in CONTROLS:
        names, own = list(record), record.get(kind)
        if kind not in record or names.index(kind) < names.index("kind") or not is_readable(kind, own):
            return Bad(offset, "is not a record: the object named like its kind cannot be read")
    if type(time) is not str or not TIME.fullmatch(time):
        time = None
    return Line(offset, seq, tail[1].decode(), tail[2].decode(), kind, durable, own, time)


# 2. A piece of a file

class Job(NamedTuple):
    """What to check: the lines that begin in these bytes of a file."""
    index: int  # of the file in its chain
    path: str
    start: int
    stop: int
    end: int  # where the region ends: what counts of the file, or what is void
    is_start: bool  # whether a line begins at `start`
    is_void: bool = False
    wants_lines: bool = False


class Summary(NamedTuple):
    """Lines that follow each other without a fault, none of them a `segment` line."""
    first: int
    previous: str
    last: int
    hash: str
    kind: str
    count: int
    events: int
    mark: int
    controls: list  # (seq, kind, own)
    low: str
    high: str


class Piece(NamedTuple):
    next: int  # where the line begins that follows the lines of the piece; 0 where it has none
    summary: Summary
    lines: list  # empty where there is a summary
    is_gone: bool = False


def open_segment(path):
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = open(path, "rb", 0, opener=lambda path, mode: os.open(path, mode | flags))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise CannotCheck(f"{path} is not a regular file")
    return file


def read_at(file, start, stop):
    """The bytes from `start` to `stop`, or to the end of the file."""
    parts = []
    file.seek(start)
    while start < stop and (part := file.read(stop - start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def check(job):
    """Checks a piece without knowing what stands before it."""
    try:
        with open_segment(job.path) as file:
            offset, lines, end = read_lines(file, job)
    except FileNotFoundError:
        return Piece(job.stop, None, [], is_gone=True)
    checked = []
    for line in lines:
        checked.append(parse(offset, line))
        offset += len(line) + 1
    if end:
        length, why = end
        checked.append(Bad(offset, f"is not a record: {why} ({length} bytes)", None, why == NO_END))
        offset += length
    summary = None if job.wants_lines or job.is_void else sum_up(checked)
    return Piece(offset, summary, [] if summary else checked)


NO_END, TOO_LONG = "it is incomplete", "it is longer than 60 KiB"


def read_lines(file, job):
    """Where the first line of a piece begins, its lines, and what stands behind them that is none: (bytes, why)."""
    start = job.start if job.is_start else job.start - 1
    data = read_at(file, start, job.stop)
    if not job.is_start:  # the line that comes in from the piece before belongs to that one
        feed = data.find(b"\n") + 1
        if not feed:
            return 0, [], None
        start, data = start + feed, data[feed:]
    lines = data.split(b"\n")
    rest = lines.pop()
    if not rest:
        return start, lines, None
    at = start + len(data)
    more = read_at(file, at, min(at + MAX_LINE, job.end))
    line, feed, _ = more.partition(b"\n")
    if feed:
        return start, lines + [rest + line], None
    offset, at = at - len(rest), at + len(more)
    while at < job.end and (more := read_at(file, at, min(at + PIECE, job.end))):
        line, feed, _ = more.partition(b"\n")
        at += len(line) + len(feed)
        if feed:
            break
    return start, lines, (at - offset, NO_END if not feed and at - offset < MAX_LINE else TOO_LONG)


def sum_up(lines):
    """The lines as one, if nothing is wrong with them or between them."""
    if not lines or type(lines[0]) is Bad:
        return None
    seq, link, events, mark, controls, low, high = lines[0].seq - 1, lines[0].previous, 0, 0, [], None, None
    for line in lines:
        if type(line) is Bad or line.seq != seq + 1 or line.previous != link or line.kind == "segment":
            return None
        _, seq, _, link, kind, durable, own, time = line
        events += kind == "event"
        mark = durable if durable > mark else mark
        if own is not None:
            controls.append((seq, kind, own))
        low, high = earlier(low, time), later(high, time)
    return Summary(lines[0].seq, lines[0].previous, seq, link, kind, len(lines), events, mark, controls, low, high)


def earlier(one, other):
    return one if other is None or one is not None and one < other else other


def later(one, other):
    return one if other is None or one is not None and one > other else other


def run(pool, jobs):
    """Checks pieces at the same time, and hands them out in their order; only some wait at a time."""
    if pool is None:
        yield from ((job, check(job)) for job in jobs)
        return
    waiting = collections.deque()
    for job in jobs:
        waiting.append((job, pool.submit(check, job)))
        if len(waiting) >= 64:
            job, piece = waiting.popleft()
            yield job, piece.result()
    for job, piece in waiting:
        yield job, piece.result()


# 3. The files of a chain (section 5: void)

class File:
    """A file, as its first line and those of newer files describe it."""

    def __init__(self, chain, number, path):
        self.number, self.path = number, path
        self.counted = None  # how many bytes count, where a newer file says so: `settle`
        self.named_by = None  # the first number of that newer file
        self.is_of_row = False  # it says so with `from`: this file never held more than a first write
        with open_segment(path) as file:
            self.bytes = os.fstat(file.fileno()).st_size
            start = read_at(file, 0, MAX_LINE)
        text, feed, rest = start.partition(b"\n")
        line = parse(0, text) if feed else None
        own = line.own if type(line) is Line and line.kind == "segment" and not is_later(line.own) else {}
        is_good = (own.get("chain"), own.get("segment")) == (chain, number)
        self.first, self.after = (line.seq, own["after"]) if is_good else (None, [])
        self.first_end = len(text) + 1 if feed else None  # where the first line ends
        is_line = is_good or type(line) is Line and line.kind == "segment" and is_later(line.own)
        is_alone = not feed or len(text) + 1 == self.bytes
        # What a crash can have left of a first write, which is one line: all of it, a part, or garbage.
        self.looks_stillborn = self.bytes <= MAX_LINE and (is_alone or not is_line and not is_text(start))


def is_text(data):
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not data.translate(None, bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)) + b"\t\r\n")


def settle(files):
    """What counts of each file: the newest claim wins, and what a file says that counts nothing is void itself.

    Returns the claims on files that are not there: {number: (bytes, first number of who says so)}.
    """
    single, rows = {}, []  # a row: (first, last, first number of who says so, its age)
    for age, file in enumerate(reversed(files)):
        row = next((row for row in rows if row[0] <= file.number <= row[1]), None)
        claim = single.pop(file.number, None)
        file.counted, file.named_by, file.is_of_row = None, None, False
        if claim and not (row and row[3] < claim[2]):
            file.counted, file.named_by = claim[:2]
        elif row:
            file.counted, file.named_by, file.is_of_row = 0, row[2], True
        if file.first is None or file.counted == 0:
            continue
        for nth, claim in enumerate(file.after):
            if claim["segment"] >= file.number:
                continue
            if first_of_row(claim) is None:
                single.setdefault(claim["segment"], (claim["bytes"], file.first, (age, nth)))
            elif len(rows) < MAX_KEPT:
                rows.append((claim["from"], claim["segment"], file.first, (age, nth)))
    return {number: claim[:2] for number, claim in single.items()
            if not any(row[0] <= number <= row[1] and row[3] < claim[2] for row in rows)}


# 4. What follows what in a chain (section 6: bad lines and their positions)

class Odd:
    """Something that does not fit. Whether it is damage is known when the whole chain is read."""

    def __init__(self, kind, at, text, place, before, **more):
        self.kind, self.at, self.text, self.place, self.before = kind, at, text, place, before
        self.records = more.get("records")  # the first and the last that it is about
        self.link = more.get("link")  # of missing records: what the record behind them links to
        self.is_certain = more.get("is_certain", False)  # damage, however high
        self.is_unfinished = more.get("is_unfinished", False)


class Oddities:
    """All of them of one chain, in the order of their positions. Those beyond the first are only counted."""

    def __init__(self):
        self.kept, self.certain = [], 0
        self.beyond, self.beyond_at, self.beyond_is_certain = collections.Counter(), MAX_NUMBER, False

    def add(self, odd):
        if len(self.kept) < MAX_KEPT:
            self.kept.append(odd)
        else:
            self.beyond[odd.kind] += 1
            self.beyond_at = min(self.beyond_at, odd.at)
            self.beyond_is_certain |= odd.is_certain
        return odd

    def make_certain(self):
        """A newer segment does not declare void what stands before it."""
        for odd in self.kept[self.certain:]:
            odd.is_certain = True
        self.certain = len(self.kept)
        self.beyond_is_certain |= bool(self.beyond)


class Good(NamedTuple):
    """How far a chain was good: what a torn end takes it back to."""
    records: int = 0
    events: int = 0
    seq: int = 0
    hash: str = ZEROS
    kind: str = None
    low: str = None
    high: str = None


class Counted:
    """What was read of one file."""

    def __init__(self, number, begins, is_old):
        self.number, self.begins, self.is_old = number, begins, is_old
        self.records = self.mark = self.void = 0
        self.is_empty, self.is_short = True, False


class Notes:
    """What an auditor should know that is no fault, by kind: the first ones, and how many."""

    def __init__(self):
        self.kept, self.count = [], collections.Counter()

    def add(self, kind, text):
        self.count[kind] += 1
        if self.count[kind] <= MAX_PRINTED:
            self.kept.append((kind, text))


def printable(word):
    """A word from the log: nothing but letters, digits and `_`."""
    return re.sub("[^A-Za-z0-9_]", "", word)[:32]


class Follow:
    """The state of one chain while it is read."""

    def __init__(self, chain):
        self.chain, self.odd, self.good, self.notes = chain, Oddities(), Good(), Notes()
        self.first = None  # the first good line: (seq, link, bad lines before it, place, begins its file)
        self.next, self.link = 1, None  # what the next line must have; None: whatever it links to
        self.holes = 0  # bad lines since the last good one
        self.jump = None  # where the chain stood before a line with too high a number: (next, link, oddity)
        self.files, self.line, self.bad_start, self.void_mark = [], 0, None, 0
        self.later = None  # where a segment of a later format begins
        self.id, self.mark, self.pruned, self.witnessed = None, 0, (0, ZEROS), {}
        self.is_old = False  # the version before wrote the last run
        self.is_open, self.runs, self.unclosed = False, 0, 0
        self.gaps, self.unconfirmed, self.recoveries, self.recovered = {}, 0, 0, set()

    def begin(self, number):
        self.line, self.bad_start = 0, None
        if not self.files or self.files[-1].number != number:
            self.files.append(Counted(number, self.next, self.is_old))

    def take(self, piece):
        """Takes in a piece of what counts, at once where it goes on without a fault."""
        summary = piece.summary
        if summary and summary.first == self.next and summary.previous == self.link and self.line and not self.later:
            self.end_bad_start(summary.first)
            for control in summary.controls:
                self.say(*control)
            self.marked(summary.mark)
            self.line += summary.count
            self.jump = None
            self.accept(summary.last, summary.hash, summary.kind, summary.count, summary.events, summary.low,
                        summary.high)
            return True
        if summary:
            return False
        for line in piece.lines:
            self.one(line)
        return True

    def one(self, line):
        """Takes in the next line, good or not."""
        self.line += 1
        if self.later:
            return
        self.files[-1].is_empty = False
        place = (self.files[-1].number, self.line, line.offset)
        if type(line) is Line and line.kind == "segment" and is_later(line.own):
            if self.line == 1:
                self.later = place
                return
            line = Bad(line.offset, "is not a record: a `segment` line of a later format inside a file")
        if type(line) is Line:
            self.right(line, place)
        elif line.seq is not None and self.first and line.seq == self.next:
            # It stands in its place. Which part was changed cannot be told, so whatever the next one links to fits.
            self.note_bad_start(self.wrong("edited", "the line " + line.why, place, records=(line.seq, line.seq)))
            self.next, self.link = line.seq + 1, None
        else:
            self.holes += 1
            kind = "malformed" if line.seq is None else "edited"
            odd = self.wrong(kind, "the line " + line.why, place, is_unfinished=line.is_unfinished)
            self.note_bad_start(odd)

    def wrong(self, kind, text, place, at=None, **more):
        return self.odd.add(Odd(kind, self.next if at is None else at, text, place, self.good, **more))

    def note_bad_start(self, odd):
        if self.line == 1:
            self.bad_start = odd

    def end_bad_start(self, seq):
        """What stands before the first good line of a file has the place before it, though the chain came that far."""
        if self.bad_start and self.bad_start.at == seq:
            self.bad_start.at = max(seq - 1, 1)
        self.bad_start = None

    def right(self, line, place):
        """A line that is right in itself: does it belong here?"""
        own = line.own if line.kind == "segment" else None
        begins = self.line == 1 and own is not None and (own["chain"], own["segment"]) == (self.chain, place[0])
        self.end_bad_start(line.seq)
        if not self.fits(line, place, begins):
            return
        if begins:
            self.odd.make_certain()
            if self.void_mark >= line.seq:
                text = (f"the segment declares everything from record {line.seq} on void, but the chain was "
                        f"durable up to record {self.void_mark}")
                self.wrong("voided", text, place, records=(line.seq, self.void_mark), is_certain=True)
            self.void_mark = 0
        problem = None
        if own is None and self.line == 1:
            problem = "the file does not begin with a `segment` line"
        elif own and (own["chain"], own["segment"]) != (self.chain, place[0]):
            problem = f"the line belongs to segment {own['segment']} of chain {own['chain']}"
        elif own and self.id not in (None, own["id"]):
            problem = "the segment belongs to a chain with another id"
        elif own and self.line > 1:
            problem = "a `segment` line is not the first line of its file"
        if problem:
            self.wrong("renamed_segment", problem, place, at=line.seq, records=(line.seq, line.seq))
        if own:
            self.id = self.id or own["id"]
        self.marked(line.durable)
        if line.own is not None and not (own and problem):  # where none belongs it says nothing of this chain
            self.say(line.seq, line.kind, line.own)
        self.accept(line.seq, line.hash, line.kind, 1, line.kind == "event", line.time, line.time)

    def fits(self, line, place, begins):
        """Whether it is taken for the next line of the chain; notes what does not fit."""
        if self.first is None:
            for odd in self.odd.kept:  # only now is it known where these stand
                is_short = odd.kind == "deleted"  # what a file lacks were the records before this one
                odd.at = max(line.seq - 1, 0) if is_short else max(line.seq - self.holes, 1)
            self.first = (line.seq, line.previous, self.holes, place, begins)
        elif line.seq == self.next:
            # What does not begin its file as it must is judged by that alone.
            if (begins or self.line > 1) and self.link not in (None, line.previous):
                text = "the line does not link to the line before it: one of the two was replaced"
                self.wrong("broken_link", text, place, at=line.seq - 1, records=(line.seq, line.seq))
            self.jump = None
        elif self.jump and self.jump[0] == line.seq and self.jump[1] in (None, line.previous):
            # It goes on where the chain stood before: nothing is missing, and that line was one too many.
            odd = self.jump[2]
            if odd:
                odd.kind, odd.text = "inserted", "the line is in the wrong place"
                odd.records = (odd.records[1] + 1, odd.records[1] + 1)
            self.jump = None
        elif line.seq > self.next:
            odd, missing = None, line.seq - self.next - self.holes
            if missing > 0:
                odd = self.wrong("deleted", missing_records(missing), place, link=line.previous,
                                 records=(self.next + self.holes, line.seq - 1))
            self.jump = (self.next, self.link, odd)
        else:
            self.marked(line.durable)  # wherever it stands, that record was durable when it was written
            is_copy = line.hash == self.good.hash
            text = "the line occurs a second time" if is_copy else "the line is in the wrong place"
            odd = self.wrong("duplicate" if is_copy else "inserted", text, place, records=(line.seq, line.seq),
                             is_certain=begins)
            if not begins:
                self.note_bad_start(odd)
            return False
        return True

    def accept(self, seq, digest, kind, count, events, low, high):
        good, file = self.good, self.files[-1]
        self.holes, self.next, self.link = 0, seq + 1, digest
        self.good = Good(good.records + count, good.events + events, seq, digest, kind, earlier(good.low, low),
                         later(good.high, high))
        file.records += count
        file.is_empty = False

    def marked(self, durable):
        self.mark = max(self.mark, durable)
        if self.files:
            self.files[-1].mark = max(self.files[-1].mark, durable)

    def say(self, seq, kind, own):
        """What a record says that is no event."""
        if kind in ("segment", "open", "mark", "close"):
            for chain, seen in own["chains"].items():
                key, known = (chain, seen["id"]), self.witnessed.get((chain, seen["id"]))
                if known and known[0] < seen["seq"] or not known and len(self.witnessed) < MAX_KEPT:
                    self.witnessed[key] = (seen["seq"], seen["hash"])
        cut = own if kind == "prune" else own.get("pruned") if kind == "segment" else None
        if cut:
            self.mark = max(self.mark, cut["through"])
            if self.pruned[0] < cut["through"] < seq:
                self.pruned = (cut["through"], cut["hash"])
        if kind == "open":
            self.runs, self.is_old = self.runs + 1, "machine" not in own
            if self.is_open:
                self.unclosed += 1
                self.notes.add("unclosed", f"the run before record {seq} ended without `close`")
        if kind in ("open", "close"):
            self.is_open = kind == "open"
        if kind == "gap":
            self.gap(seq, printable(own["reason"]), own["critical"], own["routine"])
        elif kind == "recovery":
            if whole(own.get("segment"), 0, 2**32 - 1):
                self.recovered.add(own["segment"])
            self.recoveries += 1
            cause = printable(own["cause"])
            self.notes.add("recovery", f"record {seq}: the chain was continued after a recovery ({cause})")
        elif kind == "unconfirmed":
            ranges = own["records"]
            self.unconfirmed += sum(last - first + 1 for first, last in ranges)
            text = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ranges[:20])
            text += f" and {len(ranges) - 20:,} more ranges" if len(ranges) > 20 else ""
            text += f" of chain {own['chain']} with id {own['id']}" if "chain" in own else ""
            self.notes.add("unconfirmed", f"record {seq}: these records are durable although a caller was told that they "
                                          f"are not confirmed ({printable(own['reason'])}): {text}")

    def gap(self, seq, reason, critical, routine):
        reason = reason if reason in self.gaps or len(self.gaps) < 50 else "other"
        known = self.gaps.get(reason, (0, 0))
        self.gaps[reason] = (known[0] + critical, known[1] + routine)
        self.notes.add("gap", f"record {seq}: {critical} critical and {routine} routine events were not recorded "
                              f"({reason})")

    def void(self, piece, length):
        """Bytes that a newer segment declares void: only how far they were durable matters."""
        self.files[-1].void += length
        self.files[-1].is_empty &= not length
        for line in piece.lines:
            if type(line) is Line and line.seq >= self.next and not (line.kind == "segment" and is_later(line.own)):
                through = line.own["through"] if line.kind == "prune" else 0
                self.void_mark = max(self.void_mark, line.durable, through)

    def too_short(self, file):
        self.line += 1
        if not self.files[-1].is_short:
            self.files[-1].is_short = True
            text = f"the file ends here, but the next segment says that {file.counted} bytes of it count"
            self.wrong("deleted", text, (file.number, self.line, file.bytes), is_certain=True)


def missing_records(count):
    return "1 record is missing before this line" if count == 1 else f"{count} records are missing before this line"


# 5. Reading a chain to its end, while it may be written, rotated and pruned

def list_log(directory):
    """The numbers of the files of each chain, and names that are no part of the log."""
    chains, foreign = {}, []
    for name in sorted(os.listdir(directory)):
        match = NAME.fullmatch(name)
        if match and int(match[2]):
            chains.setdefault(match[1], []).append(int(match[2]))
        elif name not in ("control", "hold", "forward-required"):
            foreign.append(name)
    return chains, foreign


END, ANEW, MISSED = "end", "anew", "missed"


class Chain:
    """A chain, as far as it has been read."""

    def __init__(self, directory, name):
        self.directory, self.name = directory, name
        self.first, self.leftovers = 0, []  # the first file that is read; retention had removed those before it
        self.begin()

    def begin(self):
        self.follow, self.files, self.absent = Follow(self.name), [], {}
        self.at, self.offset = 0, 0  # the file in which reading goes on, and where
        self.unfinished = None  # what stands behind the last line feed of the last file: (offset, bytes)
        self.index = []  # the number that belongs at the start of each piece, and its job

    def advance(self, pool=None):
        """Lists the directory again and reads on to the end of the chain. Begins anew where what was read no longer
        holds, but not for ever: a directory that is rewritten all the time is judged as it was last."""
        beginnings = 0
        for _ in range(1000):
            step = ANEW if not self.look() else self.read_on(pool)
            if step == END or step == ANEW and beginnings == 8:
                return
            if step == ANEW:
                beginnings += 1
                self.begin()
        raise CannotCheck(f"files of chain {self.name} in {self.directory} are removed faster than they can be read")

    def look(self):
        """Looks which files there are from the current one on; False where what was read no longer holds."""
        numbers = list_log(self.directory)[0].get(self.name, [])
        self.leftovers = [number for number in numbers if number < self.first]
        read = self.files[:self.at + 1]
        current = read[-1].number if read else self.first
        before = [what_counts(file) for file in read[:-1]]
        fresh = []
        for number in numbers:
            if number >= current:
                path = os.path.join(self.directory, f"audit-{self.name}-{number:08}.jsonl")
                try:
                    fresh.append(File(self.name, number, path))
                except FileNotFoundError:
                    pass  # retention removed it
        if read and fresh and fresh[0].number == current:
            read.pop()
        self.files = read + fresh
        self.absent = settle(self.files)
        if before != [what_counts(file) for file in self.files[:len(before)]]:
            return False
        return not self.offset or min(what_counts(self.files[self.at]), self.files[self.at].bytes) >= self.offset

    def jobs(self):
        at, offset = self.at, self.offset
        for index, file in enumerate(self.files[at:], at):
            start = offset if index == at else 0
            counted = min(what_counts(file), file.bytes)
            if start < counted or not start:
                # The first line of a file is looked at by itself, so that what follows can be summed up.
                yield from cut(index, file.path, start, counted, None if start else file.first_end)
            if max(start, counted) < file.bytes:
                yield from cut(index, file.path, max(start, counted), file.bytes, is_void=True)

    def read_on(self, pool):
        """Reads from where reading stopped to the end of the files."""
        follow, missed, self.unfinished = self.follow, False, None
        is_worth_it = sum(file.bytes for file in self.files[self.at:]) - self.offset > PIECE
        for job, piece in run(pool if is_worth_it else None, self.jobs()):
            missed |= piece.is_gone
            if piece.is_gone or follow.later:
                continue
            file = self.files[job.index]
            if not job.start:
                self.at, self.offset = job.index, 0
                follow.begin(file.number)
            if job.is_void:
                follow.void(piece, max(piece.next - self.offset, 0))
            else:
                piece = self.without_end(job, piece)
                self.index.append((follow.next, job))
                if not follow.take(piece):
                    follow.take(self.without_end(job, check(job._replace(wants_lines=True))))
                if job.stop == job.end and file.bytes < what_counts(file):
                    follow.too_short(file)
            self.offset = max(self.offset, piece.next)
        return MISSED if missed else ANEW if self.leave_out_leftovers() else END

    def without_end(self, job, piece):
        """The last line of the newest file may be being written: it is judged last."""
        end = piece.lines[-1] if piece.lines else None
        if type(end) is not Bad or not end.is_unfinished or job.index < len(self.files) - 1:
            return piece
        self.unfinished = (end.offset, piece.next - end.offset)
        return Piece(end.offset, None, piece.lines[:-1])

    def leave_out_leftovers(self):
        """Whether files were read although retention had removed them: they are there again, or odd."""
        through = self.follow.pruned[0]
        kept = [file.number for file in self.files if file.counted != 0 and file.first and file.first <= through + 1]
        older = [file for file in self.follow.files if kept and file.number < kept[-1]]
        # What was durable beyond the cut was not removed by it, whoever says so.
        if not through or not older or any(file.mark > through for file in older):
            return False
        there = list_log(self.directory)[0].get(self.name, [])
        if not self.follow.odd.kept and not any(number < kept[-1] for number in there):
            return False
        self.first = kept[-1]
        return True

    def look_up(self, wanted):
        """The records with these numbers, read again: {seq: (hash, link)}. None stands for what is not there."""
        found, pieces, starts = {}, {}, [seq for seq, _ in self.index]
        stray = {(odd.place[0], odd.place[2]) for odd in self.follow.odd.kept if odd.kind in ("inserted", "duplicate")}
        for position in range(len(starts) - 2, -1, -1):  # a number that was too high is taken back later
            starts[position] = min(starts[position], starts[position + 1])
        for seq in wanted:
            last = bisect.bisect_right(starts, seq) - 1
            for position in range(max(last, 0), min(last + LOOK_UP // PIECE, len(starts))):
                pieces.setdefault(position, set()).add(seq)
        for position in sorted(pieces):
            left, job = pieces[position] - found.keys(), self.index[position][1]
            for seq, offset, line in numbered_lines(job) if left else ():
                if seq in left and seq not in found and (self.files[job.index].number, offset) not in stray:
                    line = parse(offset, line)
                    found.update({seq: (line.hash, line.previous)} if type(line) is Line else {})
        return found


def cut(index, path, start, end, first=None, is_void=False):
    """The pieces of a region of a file, in which a line begins at `start` and where the first piece ends."""
    is_start, stop = True, first or start + PIECE
    while True:
        yield Job(index, path, start, min(stop, end), end, is_start, is_void)
        if stop >= end:
            return
        start, is_start, stop = stop, stop == first, stop + PIECE


def what_counts(file):
    return file.bytes if file.counted is None else file.counted


def numbered_lines(job):
    """The lines of a piece that give themselves a number, and where they begin."""
    try:
        with open_segment(job.path) as file:
            offset, lines, _ = read_lines(file, job)
    except FileNotFoundError:
        return
    for line in lines:
        if number := re.match(rb'\{"seq":([0-9]{1,20})[,}]', line):
            yield int(number[1]), offset, line
        offset += len(line) + 1


# 6. Lock files: the only part of `control` that a verdict uses

# noted/1 counter inode birth machine state id segment length seq hash from to pruned pruned_hash witnessed check
SLOT = re.compile(r"noted/1 ([0-9]+) ([0-9]+) ([0-9]+) (?:[0-9a-f]{16}|-) (?:open|closed|left) ([0-9a-f]{32}) [0-9]+ "
                  r"[0-9]+ ([0-9]+) ([0-9a-f]{64}) [^ ]+ [^ ]+ [0-9]+ (?:[0-9a-f]{64}|-) [0-9a-f]{64} ([0-9a-f]{32})")


def open_lock(path):
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, os.O_RDONLY | flags)


def birth(descriptor):
    """When a file was made, in nanoseconds since 1970; 0 where its file system does not say, None where it cannot be
    asked."""
    try:
        import ctypes
        statx, buffer = ctypes.CDLL(None).statx, ctypes.create_string_buffer(256)
        at_empty_path, btime = 0x1000, 0x800
        if statx(descriptor, b"", at_empty_path, btime, buffer):
            return None
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    number = lambda start, size: int.from_bytes(buffer.raw[start:start + size], sys.byteorder)
    return number(80, 8) * 10**9 + number(88, 4) if number(0, 4) & btime else 0


def noted_head(path):
    """The head that the writer noted in the lock file: (id, seq, hash), or None; and why it is not known."""
    try:
        descriptor = open_lock(path)
    except FileNotFoundError:
        return None, None
    except OSError:
        return None, "since its lock file could not be read"
    try:
        born, inode, best, why = birth(descriptor), os.fstat(descriptor).st_ino, None, None
        with open(descriptor, "rb", closefd=False) as file:
            blocks = file.read(2048)
        for block in (blocks[1024:1536], blocks[1536:2048]):
            text = block.decode("ascii", "replace").rstrip(" \n")
            slot = SLOT.fullmatch(text)
            said = text.rpartition(" ")[0].encode("ascii", "replace")
            if not slot or hashlib.sha256(b"\0" + said).hexdigest()[:32] != slot[7]:
                continue
            if born is None:
                why = "since this system cannot be asked when its lock file was made"
            elif (int(slot[2]), int(slot[3])) != (inode, born):
                why = "since its lock file is a copy, or was restored"
            elif best is None or int(slot[1]) > best[0]:
                best = (int(slot[1]), (slot[4], int(slot[5]), slot[6]))
        return (best[1], None) if best else (None, why)
    except OSError:
        return None, "since its lock file could not be read"
    finally:
        os.close(descriptor)


def noted_heads(directory):
    """Claims of the lock files on their chains, and of which chains nothing is known and why."""
    heads, unknown, control = {}, [], os.path.join(directory, "control")
    try:
        names = sorted(os.listdir(control))
    except FileNotFoundError:
        return heads, ["the noted heads of the chains, since there is no `control` here"]
    except OSError:
        return heads, ["the noted heads of the chains, since `control` cannot be read"]
    for match in filter(None, map(LOCK_NAME.fullmatch, names)):
        head, why = noted_head(os.path.join(control, match[0]))
        if head and head[1]:
            heads[match[1]] = head
        if why:
            unknown.append(f"chain {match[1]}: its noted head, {why}")
    return heads, unknown


class Lock:
    """Looks whether a writer holds a chain. While nobody does, keeps others out until it is left, which must be
    soon."""

    def __init__(self, directory, chain):
        self.path, self.descriptor = os.path.join(directory, "control", f"chain-{chain}.lock"), None
        self.is_held, self.unknown = False, None  # why it is not known

    def __enter__(self):
        try:
            self.descriptor = open_lock(self.path)
            if fcntl is None:
                self.unknown = "since this system has no such locks"
            else:
                fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass  # a copy of a log need not have locks
        except BlockingIOError:
            self.is_held = True
        except PermissionError:
            self.is_held = self.ask_the_system()
        except OSError:
            self.unknown = "since its lock could not be read"
        return self

    def __exit__(self, *_):
        if self.descriptor is not None:
            if fcntl is not None:
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)  # also where a process for pieces has inherited it
            os.close(self.descriptor)

    def ask_the_system(self):
        """/proc/locks names devices and inodes, to everybody, but not the processes of other containers."""
        try:
            stat = os.stat(self.path)
            file = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
            with open("/proc/locks") as locks:
                words = [line.split() for line in locks]
        except OSError:
            self.unknown = "since its lock could not be read"
            return False
        # 1: FLOCK  ADVISORY  WRITE 4711 08:01:12345 0 EOF
        if any(line[1:4:2] == ["FLOCK", "WRITE"] and line[5] == file for line in words if line[5:]):
            return True
        self.unknown = "since its lock could not be read, and /proc/locks does not show a lock on it"
        return False


# 7. What is damage (section 6)

UNCLEAN = ("unsupported_format", "torn_tail", "not_closed")


class Claim(NamedTuple):
    """Somebody says: this chain had this durable record."""
    who: str
    id: str  # None where that is not known
    seq: int
    hash: str
    is_kept: bool = False


class Findings:
    """What is wrong: the first of each kind, and how many."""

    def __init__(self):
        self.kept, self.count = [], collections.Counter()

    def add(self, kind, chain, place, seq, text):
        self.count[kind] += 1
        if self.count[kind] <= MAX_PRINTED:
            where = f"chain {chain}"
            if place:
                where += f", segment {place[0]}" + (f", line {place[1]} (byte {place[2]})" if place[1] else "")
            where += f", record {seq}" if seq is not None else ""
            self.kept.append((kind, f"{where}: {text}"))

    def verdict(self):
        return "intact" if not self.count else "unclean" if self.count.keys() <= set(UNCLEAN) else "damaged"


class Judge:
    """Judges one chain that was read to its end."""

    def __init__(self, chain, claims, is_held, findings, not_checked):
        self.chain, self.follow, self.claims, self.is_held = chain, chain.follow, claims, is_held
        self.findings, self.not_checked, self.is_torn = findings, not_checked, False
        follow = self.follow
        self.floor, self.floor_hash = follow.pruned
        closed = follow.good.seq if follow.good.kind == "close" else 0
        self.own = max(follow.mark, closed)  # how far it was durable, as the chain itself says
        meant = [claim.seq for claim in claims if self.is_meant(claim)]
        self.durable = max([self.own, self.floor, self.durable_by_looks()] + meant)
        self.found = chain.look_up({*meant, self.floor, self.floor + 1, self.own})

    def is_meant(self, claim):
        return claim.id is None or self.follow.id in (None, claim.id)

    def durable_by_looks(self):
        """The last record that must have been durable because a file without a good line holds more than the first
        write of a segment, which is durable before anything follows it. Of the version before, files tell nothing of
        this."""
        files = {file.number: file for file in self.chain.files}
        return max([read.begins for read in self.follow.files if not read.records and not read.is_empty
                    and not read.is_old and read.number in files and files[read.number].counted is None
                    and not files[read.number].looks_stillborn], default=0)

    def find(self, kind, place, seq, text):
        self.findings.add(kind, self.chain.name, place, seq, text)

    def run(self):
        """Finds what is wrong; returns how far the chain is good, and how it ends."""
        self.files()
        self.start()
        good = self.oddities()
        self.end()
        self.hold_against_claims()
        self.cut()
        if self.follow.later:
            text = "the segment has a format that this program cannot judge"
            self.find("unsupported_format", self.follow.later, None, text)
            segment = self.follow.later[0]
            self.not_checked.append(f"chain {self.chain.name}: everything from segment {segment} on, whose format is "
                                    "unknown here")
            return good, "end not judged"
        if self.is_held:
            return good, "being written"
        if good.kind == "close":
            self.stillborn_end()
            return good, "closed"
        self.find("not_closed", None, good.seq or None, "the chain ends without `close`, and " + (
            "no writer holds it" if self.is_held is False else
            "whether a writer holds it is not known: it is unclean, or still being written"))
        return good, "ended without close"

    def files(self):
        for number, (counted, named_by) in sorted(self.chain.absent.items()):
            if counted and named_by > self.floor + 1:
                text = f"the file is missing, but {counted} bytes of it count"
                self.find("missing_segment", (number, 0, 0), None, text)
        for file in self.chain.files:
            if file.is_of_row and not file.looks_stillborn and not (self.floor and file.named_by <= self.floor + 1):
                self.find("destroyed", (file.number, 1, 0), None,
                          f"the file was given up when it held at most one line, but now has {file.bytes} bytes: it "
                          "was overwritten, or its content was destroyed")

    def start(self):
        """A chain begins at record 1, or behind what retention removed."""
        if not self.follow.first:
            return
        (seq, link, holes, place, begins), first = self.follow.first, self.floor + 1
        missing = seq - first - holes
        if missing > 0 and (begins or first <= self.durable):
            self.find("deleted", place, first, missing_records(missing) + ", the first of the chain")
        elif seq == first and not holes and link != self.floor_hash:
            self.find("broken_link", place, seq, "the first record does not link to 64 zeros" if first == 1 else
                      f"the line does not link to record {self.floor}, the last before it")

    def oddities(self):
        """Tells damage from a torn end; returns how far the chain is good."""
        torn, is_excused, odd = None, True, self.follow.odd
        for one in odd.kept:
            kind, text, records = one.kind, one.text, one.records
            if one.at <= self.floor:  # removed, except where the rest must link to it
                if kind != "deleted" or not records or records[1] < self.floor:
                    continue
                if records[1] > self.floor:
                    records, text = (self.floor + 1, records[1]), missing_records(records[1] - self.floor)
                elif one.link == self.floor_hash:
                    continue
                else:
                    kind = "broken_link"
                    text = f"the line does not link to record {self.floor}, the last that was removed"
            if not one.is_certain and one.at > self.durable:
                is_excused &= one.is_unfinished or one.place[0] in self.behind_the_end()
                torn = torn or one
                continue
            self.find(kind, one.place, records and records[0], text)
        if odd.beyond and (odd.beyond_at <= self.durable or odd.beyond_is_certain):
            self.findings.count.update(odd.beyond)
        if not torn:
            return self.follow.good
        if not (is_excused and self.is_held):
            self.is_torn = True
            lines = self.follow.good.records - torn.before.records
            self.find("torn_tail", torn.place, torn.at,
                      f"the end of the chain from here on was never durable and is torn ({lines} good lines in it): "
                      f"{torn.text}")
        return torn.before

    def behind_the_end(self):
        """The files without a good line behind the last segment."""
        numbers = set()
        for file in reversed(self.follow.files):
            if file.records:
                break
            numbers.add(file.number)
        return numbers

    def end(self):
        """The bytes behind the last line feed."""
        if not self.chain.unfinished:
            return
        offset, length = self.chain.unfinished
        place = (self.follow.files[-1].number, self.follow.line + 1, offset)
        if self.follow.next <= self.durable:
            self.find("malformed", place, self.follow.next, f"the line is not a record: it is incomplete ({length} bytes)")
        elif not self.is_held and not self.is_torn:
            self.is_torn = True
            self.find("torn_tail", place, self.follow.next,
                      f"the last line is incomplete ({length} bytes) and was never durable")

    def stillborn_end(self):
        """Behind the end of a chain that was closed, a file without a good line is one that somebody had begun, or what
        is left of one."""
        last = self.follow.files[-1]
        if not last.records and not self.is_torn and self.chain.files[-1].counted is None:
            self.find("torn_tail", (last.number, 1, 0), None, "the file has no good line: " + TORN_OR_DESTROYED)

    def hold_against_claims(self):
        follow = self.follow
        reach = follow.next - 1 + follow.holes  # bad lines at the end may be what is looked for
        if not follow.later and reach < follow.mark:
            self.find("ahead", None, follow.mark, f"the chain ends with record {reach}, but its own lines say that "
                                                  f"record {follow.mark} was durable")
        for claim in self.claims:
            who, seq = claim.who, claim.seq
            if follow.later and seq > reach:
                continue  # what stands in a later format is not judged
            if not self.is_meant(claim):
                self.find("missing_chain", None, None, f"{who} names a chain with another id, which is missing")
            elif seq > reach:
                self.find("ahead", None, seq, f"the chain ends with record {reach}, but {who} names record {seq}: it "
                                              "was truncated, or copied before that")
            elif seq < self.floor:
                if claim.is_kept:
                    self.not_checked.append(f"chain {self.chain.name}: the head for record {seq} (the record was "
                                            "removed by retention)")
            elif self.hash_of(seq) not in (None, claim.hash):
                self.find("head_mismatch", None, seq, f"the hash does not match: {who} names a different hash for this "
                                                      "record, so the chain was rewritten")

    def hash_of(self, seq):
        return self.floor_hash if seq == self.floor else self.found.get(seq, (None,))[0]

    def cut(self):
        """What is left of the last removed record must have the hash that stands for it."""
        if not self.follow.first or self.follow.first[0] > self.floor:
            return
        known, behind = self.found.get(self.floor), self.found.get(self.floor + 1)
        if known and known[0] != self.floor_hash:
            self.find("head_mismatch", None, self.floor,
                      "the hash does not match: the record does not have the hash that the chain continues from")
        elif not known and behind and behind[1] != self.floor_hash:
            self.find("head_mismatch", None, self.floor, "the next record does not link to this one")

    def head(self, good):
        """The last durable record that is there: (seq, hash)."""
        if not good.seq or good.seq <= self.own:
            return (good.seq, good.hash) if good.seq else None
        return (self.own, self.found[self.own][0]) if self.own in self.found else None


TORN_OR_DESTROYED = "its first write was torn, or its content was destroyed"


# 8. The report

MEANING = {"intact": "every durable record is there and unaltered",
           "unclean": "nothing durable is altered, but the log did not end in order",
           "damaged": "records that had been durable are altered or missing"}
EXIT_CODE = {"intact": 0, "damaged": 1, "unclean": 3}
COULD_NOT_CHECK = 2
NEVER_CHECKED = ("whether a chain was removed that no other chain witnessed and of which no head was given",
                 "who wrote the lines: well-formed lines appended by somebody else, a forged `prune` among them, look "
                 "like the log's own (only signatures would show the difference)")


def count(number, what=""):
    return f"{number:,}" + (f" {what}{'' if number == 1 else 's'}" if what else "")


class Report:
    """What was found, in the order in which it is printed."""

    def __init__(self, directory):
        self.directory, self.findings, self.notes, self.not_checked = directory, Findings(), Notes(), []
        self.records = self.events = 0
        self.low = self.high = None
        self.lost, self.chains = {}, []

    def note(self, chain, kind, text):
        self.notes.add(kind, f"chain {chain}: {text}")

    def add(self, chain, judge, good, end):
        """Takes in one chain."""
        follow, lines = chain.follow, []
        self.records, self.events = self.records + good.records, self.events + good.events
        self.low, self.high = earlier(self.low, good.low), later(self.high, good.high)
        segments = count(len(follow.files), "segment")
        lines.append(f"  chain    {chain.name}: {count(good.records, 'record')} in {segments}, {end}")
        head = judge.head(good)
        if head:
            lines.append(f"    head   {chain.name}/{head[0]}:{head[1]}")
        if good.seq > (head[0] if head else 0):
            lines.append(f"    after  {count(good.seq - (head[0] if head else 0))} not known to be durable")
        lines += [f"    times  {good.low} to {good.high}"] if good.low else []
        if follow.runs:
            lines.append(f"    runs   {follow.runs:,}, {follow.unclosed:,} of them ended without close before another")
        if follow.recoveries:
            lines.append(f"    recov. {count(follow.recoveries, 'recovery record')}")
        if follow.gaps:
            lines.append("    lost   " + lost(follow.gaps))
        if follow.unconfirmed:
            lines.append(f"    unsure {count(follow.unconfirmed, 'record')}: a caller got an error, so the actions may have been refused")
        if follow.pruned[0]:
            lines.append(f"    pruned records 1 to {follow.pruned[0]}")
            self.not_checked.append(f"chain {chain.name}: records 1 to {follow.pruned[0]}, removed by retention")
        void = sum(file.void for file in follow.files)
        lines += [f"    void   {count(void, 'byte')}"] if void else []
        for reason, (critical, routine) in follow.gaps.items():
            known = self.lost.get(reason, (0, 0))
            self.lost[reason] = (known[0] + critical, known[1] + routine)
        self.chains.append("\n".join(lines))
        for kind, text in follow.notes.kept:
            self.note(chain.name, kind, text)
        self.note_files(chain, judge.is_held)
        for kind, total in follow.notes.count.items():  # those beyond the first were only counted
            self.notes.count[kind] += max(total - MAX_PRINTED, 0)

    def note_files(self, chain, is_held):
        follow = chain.follow
        named = {file.number for file in chain.files if file.counted is not None}
        for file in follow.files:
            if file.void and file.records and file.number not in follow.recovered:
                self.note(chain.name, "undeclared", f"{file.void} bytes of segment {file.number} are void, and no "
                                                    "`recovery` record explains them")
            elif file.void:
                self.note(chain.name, "void", f"{file.void} bytes of segment {file.number} are void")
            elif not file.records:
                what = "is empty" if file.is_empty else "has no good line"
                why = "" if file.number in named else ": " + TORN_OR_DESTROYED
                self.note(chain.name, "stillborn", f"segment {file.number} {what}{why}")
        for number in chain.leftovers if not is_held else ():  # who holds the chain may be about to remove them
            self.note(chain.name, "leftover", f"segment {number} was removed by retention and exists again")
        if is_held:
            what = "; its last line is being written" if chain.unfinished else ""
            self.note(chain.name, "live", f"a writer holds the chain{what}")

    def missing(self, chain, claims):
        for claim in claims:
            text = f"{claim.who} names record {claim.seq}, but the chain is missing"
            self.findings.add("missing_chain", chain, None, claim.seq, text)

    def limits(self, chains, heads):
        for chain in sorted(chains):
            kept = max([head.seq for head in heads.get(chain, [])], default=0)
            self.not_checked.append(
                f"chain {chain}: whether records after {kept} were cut off or rewritten (no later head was given)"
                if kept else
                f"chain {chain}: whether its end was cut off at a line, an older copy was put back, or all of it was "
                "rewritten (no head kept elsewhere was given)")
        self.not_checked += NEVER_CHECKED

    def text(self):
        verdict = self.findings.verdict()
        lines = [f"{verdict.upper()}: {MEANING[verdict]}", f"  log      {self.directory}",
                 f"  records  {count(self.records)} ({self.events:,} events)"]
        lines += [f"  times    {self.low} to {self.high}"] if self.low else []
        lines += [f"  lost     {lost(self.lost)}"] if self.lost else []
        lines += self.chains
        for title, items in (("findings", self.findings), ("notes", self.notes)):
            if items.count:
                lines += ["", f"{title} ({sum(items.count.values()):,})"]
                lines += [f"  - {kind}: {text}" for kind, text in items.kept]
                lines += [f"  - and {total - MAX_PRINTED:,} more of the kind {kind}"
                          for kind, total in items.count.items() if total > MAX_PRINTED]
        return "\n".join(lines + ["", "not checked"] + [f"  - {text}" for text in self.not_checked])


def lost(gaps):
    critical, routine = (sum(counts[which] for counts in gaps.values()) for which in (0, 1))
    reasons = ", ".join(f"{reason} {sum(counts):,}" for reason, counts in sorted(gaps.items()))
    return f"{critical:,} critical and {routine:,} routine events, by its own count ({reasons})"


def verify(directory, heads, pool=None):
    """The report on a log. `heads`: claims by chain."""
    if not list_log(directory)[0]:
        raise CannotCheck(f"there is no log in {directory}")
    noted, unknown = noted_heads(directory)  # before the chains: what is noted is durable, so they must have it
    listed, foreign = list_log(directory)
    chains = {name: Chain(directory, name) for name in listed}
    for chain in chains.values():
        chain.advance(pool)
    # From here on nothing new is believed: what was witnessed was durable before, so the second look must find it.
    claims = {name: list(kept) for name, kept in heads.items()}
    for name, head in noted.items():
        claims.setdefault(name, []).append(Claim("the noted head in its lock file", *head))
    for name, chain in chains.items():
        for (other, chain_id), (seq, digest) in chain.follow.witnessed.items():
            claims.setdefault(other, []).append(Claim(f"chain {name}", chain_id, seq, digest))
    for name in list_log(directory)[0]:
        chains.setdefault(name, Chain(directory, name))
    report = Report(directory)
    for name in foreign:
        report.notes.add("foreign", f"{ascii(name)} is not part of the log")
    for name, chain in sorted(chains.items()):
        chain.advance(pool)
        with Lock(directory, name) as lock:
            chain.advance(pool)
        if lock.unknown:
            report.not_checked.append(f"chain {name}: whether a writer holds it, {lock.unknown}")
        is_held = None if lock.unknown else lock.is_held
        judge = Judge(chain, claims.get(name, []), is_held, report.findings, report.not_checked)
        report.add(chain, judge, *judge.run())
    for name in sorted(claims.keys() - chains.keys()):
        report.missing(name, claims[name])
    report.not_checked += unknown
    report.limits(chains, heads)
    return report


def read_heads(arguments, files):
    """The heads that were kept elsewhere, as claims by chain."""
    said = [(f"argument {head!r}", head) for head in arguments]
    for path in files:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0].strip() for line in file]
        said += [(f"line {number} of {path}, {line!r},", line) for number, line in enumerate(lines, 1) if line]
    heads = {}
    for where, text in said:
        head = HEAD.fullmatch(text)
        if not head or int(head[2]) > MAX_NUMBER:
            raise CannotCheck(f"{where} is not a head: a head is <chain>/<sequence number>:<hash>, with three digits "
                              "before the slash and 64 lower-case hexadecimal digits behind the colon")
        claim = Claim("a head that was kept elsewhere", None, int(head[2]), head[3], is_kept=True)
        heads.setdefault(head[1], []).append(claim)
    return heads


def workers(directory):
    """Processes for the pieces of a large log, if there is more than one processor."""
    files = (entry for entry in os.scandir(directory) if NAME.fullmatch(entry.name))
    size = sum(entry.stat(follow_symlinks=False).st_size for entry in files)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if size <= 4 * PIECE or processors == 1:
        return None
    try:
        return ProcessPoolExecutor(processors)
    except (ImportError, OSError, NotImplementedError):
        return None  # one process is enough, only slower


def main(arguments):
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="verify.py", usage=argparse.SUPPRESS, description=__doc__.partition("In reading order")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIRECTORY", help="the log")
    parser.add_argument("head", metavar="HEAD", nargs="*", help="a record that must be there: <chain>/<seq>:<hash>")
    parser.add_argument("--heads", metavar="FILE", action="append", default=[], help="a file with a head on each line")
    given = parser.parse_intermixed_args(arguments)
    try:
        heads, pool = read_heads(given.head, given.heads), workers(given.directory)
        try:
            report = verify(given.directory, heads, pool)
        finally:
            if pool:
                pool.shutdown()
        print(report.text(), flush=True)
        return EXIT_CODE[report.findings.verdict()]
    except CannotCheck as error:
        print(f"could not check: {error}", file=sys.stderr)
    except Exception as error:  # whatever it is, it is no verdict
        print(f"could not check: {error if isinstance(error, OSError) else repr(error)}", file=sys.stderr)
    return COULD_NOT_CHECK


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(COULD_NOT_CHECK)
