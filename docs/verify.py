#!/usr/bin/env python3
"""Checks an audit log against docs/format.md, with nothing but the standard library.

    python3 verify.py DIRECTORY [HEAD ...]      a HEAD is <chain>/<seq>:<hash>, kept elsewhere

Prints a line for each chain, with its last durable record, and what stands behind that. Exits 0 when all are intact, 1 when one is unclean (a torn end, or no
`close`: a log that is being written looks so too), 2 when one is damaged, 3 when there is no log or it could not be checked.
"""
import hashlib, json, os, re, stat, sys

NAME = re.compile(r"audit-([0-9]{3})-([0-9]{8})\.jsonl")
TAIL = re.compile(rb',"_prev_hash":"[0-9a-f]{64}","_hash":"([0-9a-f]{64})"\}\Z')
ZEROS = "0" * 64
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
                       "\U000e0000-\U000e007f]")
FORMAT = 1  # what this program can judge
DEPTH = 32


def unique(pairs):
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a member stands twice")
    return dict(pairs)


def refuse(what):
    raise ValueError(what)


def whole(value, least=0, most=2**64 - 1):
    return type(value) is int and least <= value <= most


def digits(value, count):
    return type(value) is str and re.fullmatch("[0-9a-f]{%d}" % count, value) is not None


def strict(text):
    """The object in a text, by the rules of section 2 of docs/format.md; ValueError if it is not so."""
    bare = STRING.sub("0", text)  # what stands outside of strings
    depth = deepest = 0
    for character in bare:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    if FORBIDDEN.search(text) or re.search(r"\s", bare) or deepest > DEPTH:
        raise ValueError("not strict JSON")
    integer = lambda number: int(number) if len(number) < 30 else float("inf")
    record = json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_int=integer)
    json.dumps(record, ensure_ascii=False).encode()  # refuses lone surrogates
    return record


def readable(record):
    """Whether the object named like the kind is what section 4 says, as far as a verdict depends on it."""
    kind = record.get("kind")
    if kind not in ("segment", "open", "mark", "close", "gap", "recovery", "prune"):
        return True
    own, names = record.get(kind), list(record)
    if type(own) is not dict or names.index(kind) < names.index("kind"):
        return False
    if kind == "gap":
        return type(own.get("reason")) is str and whole(own.get("critical")) and whole(own.get("routine"))
    if kind == "recovery":
        return type(own.get("cause")) is str
    if kind == "prune":
        files = own.get("files")
        return (whole(own.get("through")) and digits(own.get("hash"), 64) and type(own.get("reason")) is str
                and type(files) is list and len(files) > 1 and all(whole(file, 0, 2**32 - 1) for file in files[:2]))
    if kind == "segment":
        if is_later(record):
            return True
        pruned, after = own.get("pruned", {"through": 0, "hash": ZEROS}), own.get("after")
        if not (whole(own.get("format"), 1) and digits(own.get("id"), 32) and type(own.get("chain")) is str
                and re.fullmatch("[0-9]{3}", own["chain"]) and whole(own.get("segment"), 0, 2**32 - 1)
                and type(after) is list and all(type(claim) is dict for claim in after)
                and all(whole(claim.get("segment"), 0, 2**32 - 1) and whole(claim.get("bytes")) for claim in after)
                and type(pruned) is dict and whole(pruned.get("through")) and digits(pruned.get("hash"), 64)):
            return False
    chains = own.get("chains")
    return type(chains) is dict and all(
        re.fullmatch("[0-9]{3}", chain) and type(seen) is dict and digits(seen.get("id"), 32)
        and whole(seen.get("seq")) and digits(seen.get("hash"), 64) for chain, seen in chains.items())


def is_later(record):
    """Whether it begins a segment of a later format, which this program must not judge."""
    own = record.get("segment") if record.get("kind") == "segment" else None
    number = own.get("format") if type(own) is dict else None
    return type(number) in (int, float) and number > FORMAT and (type(number) is int or number > 2**64)


def parse(line):
    """The record in a line (bytes, without line feed), or None if its layout or hash is wrong."""
    tail = TAIL.search(line)
    if not tail or not line.startswith(b'{"seq":') or len(line) >= 60 * 1024:
        return None
    body = line[:-76] + b"}"  # without ,"_hash":"<64 digits>"
    if hashlib.sha256(b"\0" + body).hexdigest() != tail[1].decode():
        return None
    try:
        record = strict(line.decode())
    except (ValueError, RecursionError):
        return None
    return record if whole(record["seq"], 1) and whole(record.get("durable", 0)) and readable(record) else None


def parts(chain, paths):
    """Each file of a chain, oldest first: its number, its first record if that counts, the lines that count, the void ones."""
    counted, files = {}, []
    for number in sorted(paths, reverse=True):
        data = open(paths[number], "rb").read()
        first = parse(data.partition(b"\n")[0])
        count = counted.get(number, len(data))
        own = first["segment"] if first and first.get("kind") == "segment" and not is_later(first) else {}
        starts = (own.get("chain"), own.get("segment")) == (chain, number) and counted.get(number) != 0
        if starts:
            for claim in own["after"]:  # what the newest segment says wins
                if claim["segment"] < number:
                    counted.setdefault(claim["segment"], claim["bytes"])
        lines = [data[:count].split(b"\n"), data[count:].split(b"\n")]
        if lines[0][-1] == b"":
            lines[0].pop()  # nothing stands behind the last line feed
        else:
            lines[0][-1] += b"\n"  # a line without end is no record: make sure that it is none
        files.insert(0, (number, first["seq"] if starts else None, *lines))
        if count > len(data):
            files.insert(1, (number, None, [b"(the file is shorter than what counts of it)"], []))
    return files


def read(chain, paths):
    """Follows one chain; leaves out what retention had removed and is there again."""
    while True:
        files = parts(chain, paths)
        found = follow(chain, files)
        through = found["pruned"][0]
        kept = max([number for number, first, *_ in files if first and first <= through + 1], default=0)
        older = [number for number in paths if number < kept]
        if not through or not older or any(found["marks"].get(number, 0) > through for number in older):
            return found  # what was durable beyond the cut was not removed by it
        paths = {number: path for number, path in paths.items() if number >= kept}


def follow(chain, files):
    """What the lines of a chain say. `wrong`: [position, certain, text, (last missing, link behind it)]."""
    found = {"id": None, "first": None, "last": None, "hashes": {}, "mark": 0, "pruned": (0, ZEROS),
             "wrong": [], "witnessed": [], "next": 1, "marks": {}, "later": None}
    wrong, previous, holes, void_mark = found["wrong"], ZEROS, 0, 0

    def mark(durable):
        found["mark"] = max(found["mark"], durable)
        found["marks"][number] = max(found["marks"].get(number, 0), durable)

    for number, _, lines, void in files:
        bad_start = None
        for index, line in enumerate(lines, 1):
            where, record, expected = f"segment {number} line {index}", parse(line), found["next"]
            if record is None or index > 1 and is_later(record):
                wrong.append([expected, False, f"{where}: bad line", None])
                bad_start = wrong[-1] if index == 1 else bad_start
                holes += 1
                continue
            if is_later(record):
                found["later"] = f"{where}: a format that this program cannot judge"
                return found
            seq, link, kind = record["seq"], record["_prev_hash"], record.get("kind")
            own = record[kind] if type(kind) is str and type(record.get(kind)) is dict else {}
            begins = kind == "segment" and index == 1 and (own["chain"], own["segment"]) == (chain, number)
            if bad_start and seq == expected:  # the place before the first good line, though the chain had come that far
                bad_start[0] = min(bad_start[0], max(seq - 1, 1))
            bad_start = None
            if found["first"] is None:
                found["first"] = (seq, link, holes, begins)
                for entry in wrong:
                    entry[0] = max(seq - holes, 1)  # only now is it known where these stand
            elif seq < expected:
                wrong.append([expected, begins, f"{where}: record {seq} is out of place", None])
                bad_start = wrong[-1] if index == 1 and not begins else None
                mark(record.get("durable", 0))
                continue
            elif seq > expected + holes:
                text = f"{where}: records {expected + holes} to {seq - 1} are missing"
                wrong.append([expected, False, text, (seq - 1, link)])
            elif seq == expected and link != previous and (begins or index > 1):
                text = f"{where}: record {seq} does not link to the one before it"
                wrong.append([seq - 1, False, text, None])
            if kind == "segment":
                found["id"] = found["id"] or own["id"]
            if begins:
                for entry in wrong:
                    entry[1] = True  # this segment does not declare it void
                if void_mark >= seq:
                    text = f"{where}: durable records are declared void"
                    wrong.append([seq, True, text, None])
                void_mark = 0
            if begins != (kind == "segment" or index == 1) or begins and own["id"] != found["id"]:
                text = f"{where}: not the first line of this segment"
                wrong.append([seq, False, text, None])
                own = {} if kind == "segment" else own  # it says nothing of this chain
            cut = own if kind == "prune" else own.get("pruned", {}) if kind == "segment" else {}
            if found["pruned"][0] < cut.get("through", 0) < seq:
                found["pruned"] = (cut["through"], cut["hash"])
            mark(record.get("durable", 0))
            found["mark"] = max(found["mark"], cut.get("through", 0))
            if kind in ("segment", "open", "mark", "close"):
                found["witnessed"] += own.get("chains", {}).items()
            found["last"], found["hashes"][seq] = record, record["_hash"]
            found["next"], previous, holes = seq + 1, record["_hash"], 0
        for record in filter(None, map(parse, void)):
            if record["seq"] >= found["next"] and not is_later(record):
                void_mark = max(void_mark, record.get("durable", 0))
                if record.get("kind") == "prune":
                    void_mark = max(void_mark, record["prune"]["through"])
    return found


def judge(found, claims):
    """Returns 0, 1 or 2, and why. A claim is (who, id or None, seq, hash)."""
    through, cut_hash = found["pruned"]
    last, reach = found["last"] or {}, found["next"] - 1
    claims = [claim for claim in claims if claim[2] >= through or claim[1] not in (None, found["id"])]
    durable = max([found["mark"], last["seq"] if last.get("kind") == "close" else 0]
                  + [claim[2] for claim in claims])
    damage, torn = [], []
    for position, certain, text, missing in found["wrong"]:
        if position <= through:  # removed by retention, except where the rest must link to it
            if missing and (missing[0] > through or missing[0] == through and missing[1] != cut_hash):
                damage.append(text)
        else:
            (damage if certain or position <= durable else torn).append(text)
    seq, link, holes, is_segment = found["first"] or (through + 1, cut_hash, 0, False)
    if seq > through + 1 + holes and (is_segment or durable > through):
        damage.append(f"records {through + 1} to {seq - 1} are missing")
    if seq == through + 1 and not holes and link != cut_hash:
        damage.append("the first record does not link to what came before it")
    if found["hashes"].get(through, cut_hash) != cut_hash:
        damage.append("the last pruned record has another hash")
    if found["later"]:
        torn.append(found["later"])
        claims = [claim for claim in claims if claim[2] <= reach]
    elif reach < durable:
        damage.append(f"the chain ends with record {reach}, and record {durable} was durable")
    for who, chain_id, seq, digest in claims:
        known = cut_hash if seq == through else found["hashes"].get(seq, digest)
        if known != digest or chain_id not in (None, found["id"]):
            damage.append(f"{who} knows another record {seq}")
    if last.get("kind") != "close" and not found["later"]:
        torn.append("it does not end with `close`: ended in disorder, or still being written")
    return (2 if damage else 1 if torn else 0), damage + torn


def main(directory, *heads):
    chains, claims, worst = {}, {}, 0
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if (match := NAME.fullmatch(name)) and int(match[2]) and stat.S_ISREG(os.lstat(path).st_mode):
            chains.setdefault(match[1], {})[int(match[2])] = path
    for head in heads:
        chain, seq, digest = re.fullmatch(r"(\d{3})/(\d+):([0-9a-f]{64})", head).groups()
        claims.setdefault(chain, []).append(("a kept head", None, int(seq), digest))
    found = {chain: read(chain, paths) for chain, paths in chains.items()}
    for chain in found:
        for other, seen in found[chain]["witnessed"]:
            claim = (f"chain {chain}", seen["id"], seen["seq"], seen["hash"])
            claims.setdefault(other, []).append(claim)
    for chain in sorted({*found, *claims}):
        verdict, why = 2, ["the chain is missing"]
        if chain in found:
            verdict, why = judge(found[chain], claims.get(chain, []))
        worst, last = max(worst, verdict), found.get(chain, {}).get("last") or {}
        closed = last["seq"] if last.get("kind") == "close" else 0
        durable = min(last.get("seq", 0), max(found[chain]["mark"], closed) if chain in found else 0)
        head = f"{chain}/{durable}:{found[chain]['hashes'].get(durable, ZEROS) if durable else ZEROS}"
        if last.get("seq", 0) > durable:
            why = [*why, f"{last['seq'] - durable} more records are provisional: not known to be durable"]
        print(head, ("intact", "unclean", "damaged")[verdict], *[f"\n  {text}" for text in why])
    return worst if found else 3


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]) if sys.argv[1:] else 3)
    except Exception as error:  # whatever it is, it is no verdict
        sys.exit(print(f"could not check: {error!r}") or 3)
