#!/usr/bin/env python3
"""Checks an audit log against docs/format.md, with nothing but the standard library.

    python3 verify.py DIRECTORY [HEAD ...]      a HEAD is <chain>/<seq>:<hash>, kept elsewhere

Prints a line for each chain. Exits 0 when all are intact, 1 when one is unclean (a torn end, or no
`close`: a log that is being written looks so too), 2 when one is damaged, 3 when there is no log or it could not be checked.
"""
import hashlib, json, os, re, stat, sys

NAME = re.compile(r"audit-([0-9]{3})-([0-9]{8})\.jsonl")
TAIL = re.compile(rb',"_prev_hash":"[0-9a-f]{64}","_hash":"([0-9a-f]{64})"\}\Z')
ZEROS = "0" * 64


def unique(pairs):
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a member stands twice")
    return dict(pairs)


def parse(line):
    """The record in a line (bytes, without line feed), or None if its layout or hash is wrong."""
    tail = TAIL.search(line)
    if not tail or not line.startswith(b'{"seq":') or len(line) >= 60 * 1024:
        return None
    body = line[:-76] + b"}"  # without ,"_hash":"<64 digits>"
    if hashlib.sha256(b"\0" + body).hexdigest() != tail[1].decode():
        return None
    try:
        record = json.loads(line.decode(), object_pairs_hook=unique)
        return record if type(record["seq"]) is int and record["seq"] > 0 else None
    except (ValueError, RecursionError):
        return None


def parts(paths):
    """Each file of a chain, oldest first: its number, the lines that count, and the void ones."""
    counted, files = {}, []
    for number in sorted(paths, reverse=True):
        data = open(paths[number], "rb").read()
        first = parse(data.partition(b"\n")[0])
        count = counted.get(number, len(data))
        if first and first["kind"] == "segment" and counted.get(number) != 0:
            for claim in first["segment"]["after"]:  # what the newest segment says wins
                counted.setdefault(claim["segment"], claim["bytes"])
        lines = [data[:count].split(b"\n"), data[count:].split(b"\n")]
        if lines[0][-1] == b"":
            lines[0].pop()  # nothing stands behind the last line feed
        else:
            lines[0][-1] += b"\n"  # a line without end is no record: make sure that it is none
        files.insert(0, (number, *lines))
        if count > len(data):
            files.insert(1, (number, [b"(the file is shorter than what counts of it)"], []))
    return files


def read(chain, paths):
    """Follows one chain. `wrong`: [position, certain, text, (last missing, link behind it), segment]."""
    found = {"id": None, "first": None, "last": None, "hashes": {}, "mark": 0, "pruned": (0, ZEROS),
             "wrong": [], "witnessed": [], "next": 1, "ends": {}}
    wrong, previous, holes, void_mark = found["wrong"], ZEROS, 0, 0
    for number, lines, void in parts(paths):
        for index, line in enumerate(lines, 1):
            where, record, expected = f"segment {number} line {index}", parse(line), found["next"]
            if record is None:
                wrong.append([expected, False, f"{where}: bad line", None, number])
                holes += 1
                continue
            seq, link, kind = record["seq"], record["_prev_hash"], record.get("kind")
            own = record.get(kind, {})
            if found["first"] is None:
                found["first"] = (seq, link, holes, kind == "segment" and index == 1)
                for entry in wrong:
                    entry[0] = max(seq - holes, 1)  # only now is it known where these stand
            elif seq < expected:
                wrong.append([expected, False, f"{where}: record {seq} is out of place", None, number])
                continue
            elif seq > expected + holes:
                text = f"{where}: records {expected + holes} to {seq - 1} are missing"
                wrong.append([expected, False, text, (seq - 1, link), number])
            elif seq == expected and link != previous:
                text = f"{where}: record {seq} does not link to the one before it"
                wrong.append([seq - 1, False, text, None, number])
            if kind == "segment" and index == 1:
                for entry in wrong:
                    entry[1] = True  # this segment does not declare it void
                if void_mark >= seq:
                    text = f"{where}: durable records are declared void"
                    wrong.append([seq, True, text, None, number])
                void_mark, found["id"] = 0, found["id"] or own["id"]
            if (kind == "segment") != (index == 1) or kind == "segment" and (
                    (own["chain"], own["segment"], own["id"]) != (chain, number, found["id"])):
                text = f"{where}: not the first line of this segment"
                wrong.append([seq, False, text, None, number])
            cut = own if kind == "prune" else own.get("pruned", {}) if kind == "segment" else {}
            if found["pruned"][0] < cut.get("through", 0) < seq:
                found["pruned"] = (cut["through"], cut["hash"])
            found["mark"] = max(found["mark"], record.get("durable", 0), cut.get("through", 0))
            if kind in ("segment", "open", "mark", "close"):
                found["witnessed"] += own.get("chains", {}).items()
            found["last"], found["hashes"][seq] = record, record["_hash"]
            found["next"], previous, holes = seq + 1, record["_hash"], 0
            found["ends"][number] = seq
        for record in filter(None, map(parse, void)):
            if record["seq"] >= found["next"]:
                void_mark = max(void_mark, record.get("durable", 0))
    return found


def judge(found, claims):
    """Returns 0, 1 or 2, and why. A claim is (who, id or None, seq, hash)."""
    through, cut_hash = found["pruned"]
    last, reach = found["last"] or {}, found["next"] - 1
    claims = [claim for claim in claims if claim[2] > through]
    durable = max([found["mark"], last["seq"] if last.get("kind") == "close" else 0]
                  + [claim[2] for claim in claims])
    damage, torn = [], []
    leftover = max([number for number, end in found["ends"].items() if end <= through], default=0)
    for position, certain, text, missing, number in found["wrong"]:
        if position <= through or number <= leftover:  # removed by retention, except where the rest must link to it
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
    if reach < durable:
        damage.append(f"the chain ends with record {reach}, and record {durable} was durable")
    for who, chain_id, seq, digest in claims:
        if found["hashes"].get(seq, digest) != digest or chain_id not in (None, found["id"]):
            damage.append(f"{who} knows another record {seq}")
    if last.get("kind") != "close":
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
        head = f"{chain}/{last.get('seq', 0)}:{last.get('_hash', ZEROS)}"
        print(head, ("intact", "unclean", "damaged")[verdict], *[f"\n  {text}" for text in why])
    return worst if found else 3


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]) if sys.argv[1:] else 3)
    except Exception as error:  # whatever it is, it is no verdict
        sys.exit(print(f"could not check: {error!r}") or 3)
