#!/usr/bin/env python3
"""An OTLP receiver for tests: logs over HTTP, parsed with the official protobuf classes.

It prints `listening on PORT`, and appends one JSON line to a file for each request: what was sent, and how it
answered. A POST of JSON to /control changes how it answers from then on; the keys are in `DEFAULTS`.

With --store it is a store that may be killed: it appends one line for each log record, the id of its chain, a tab and
the body, and syncs the file before it answers.
"""

import argparse
import json
import os
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

DEFAULTS = {
    # How requests are answered: `ok`, `status`, `refuse_every_third`, `partial`, `warn`, `html`, `hang`, `cut`.
    "mode": "ok",
    # For `status`: what is answered.
    "status": 200,
    "headers": {},
    "text": "",
    # For `partial`: log records with this action are rejected, the others are accepted.
    "action": "",
    # The text of a partial success, a warning or a refusal. `{authorization}` is replaced by that header.
    "message": "",
}

PROTOBUF = "application/x-protobuf"


def any_value(value):
    """A value with its type, so that 1, 1.0, True and "1" are distinguished."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return {kind: [any_value(each) for each in value.array_value.values]}
    if kind == "kvlist_value":
        return {kind: attributes(value.kvlist_value.values)}
    return {kind: getattr(value, kind)}


def attributes(pairs):
    names = [pair.key for pair in pairs]
    assert len(names) == len(set(names)), f"attributes given twice: {names}"
    return {pair.key: any_value(pair.value) for pair in pairs}


def log_record(record):
    return {
        "time_unix_nano": record.time_unix_nano,
        "observed_time_unix_nano": record.observed_time_unix_nano,
        "severity_number": record.severity_number,
        "severity_text": record.severity_text,
        "body": record.body.string_value,
        "attributes": attributes(record.attributes),
        "dropped_attributes_count": record.dropped_attributes_count,
        "flags": record.flags,
        "trace_id": record.trace_id.hex(),
        "span_id": record.span_id.hex(),
        "event_name": record.event_name,
    }


def stored(request):
    """The lines of a request for --store."""
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                ids = (pair.value.string_value for pair in record.attributes if pair.key == "audit.chain.id")
                yield f"{next(ids, '')}\t{record.body.string_value}\n"


def status_message(text):
    """google.rpc.Status with the field `message` (2)."""
    raw = text.encode()
    length, varint = len(raw), b""
    while True:
        varint += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
        length >>= 7
        if not length:
            return b"\x12" + varint + raw


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        server = self.server
        if len(body) < length:
            # The client was killed while it sent.
            self.close_connection = True
            return None
        if self.path == "/control":
            server.settings = {**DEFAULTS, **json.loads(body)}
            return self.answer(200, "application/json", b"{}")
        settings = server.settings
        with server.lock:
            server.requests += 1
            is_third = server.requests % 3 == 0

        assert self.headers["content-type"] == PROTOBUF
        request = ExportLogsServiceRequest.FromString(body)
        if server.is_store:
            lines = "".join(stored(request)).encode()
            with server.lock, open(server.output, "ab", buffering=0) as output:
                output.write(lines)
                os.fsync(output.fileno())
            return self.answer(200, PROTOBUF, ExportLogsServiceResponse().SerializeToString())
        records, resource, scope = [], {}, {}
        for resource_logs in request.resource_logs:
            resource = attributes(resource_logs.resource.attributes)
            for scope_logs in resource_logs.scope_logs:
                scope = MessageToDict(scope_logs.scope)
                records += [log_record(record) for record in scope_logs.log_records]

        mode, message = settings["mode"], settings["message"]
        message = message.replace("{authorization}", self.headers.get("authorization", ""))
        response, rejected = ExportLogsServiceResponse(), 0
        status, kind, answer = 200, PROTOBUF, None
        if mode == "refuse_every_third" and is_third:
            status, answer = 400, status_message(message)
        elif mode == "status":
            status, kind, answer = settings["status"], "text/plain", settings["text"].encode()
        elif mode == "html":
            kind, answer = "text/html; charset=utf-8", b"<!DOCTYPE html><title>Sign in</title>"
        elif mode == "partial":
            action = {"string_value": settings["action"]}
            taken = [record for record in records if record["attributes"].get("audit.action") != action]
            rejected = len(records) - len(taken)
            records = taken
            if rejected:
                response.partial_success.rejected_log_records = rejected
                response.partial_success.error_message = message
        elif mode == "warn":
            response.partial_success.error_message = message
        is_taken = mode in ("ok", "partial", "warn", "hang", "cut") or (mode == "refuse_every_third" and status == 200)
        entry = {
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "bytes": len(body),
            "resource": resource,
            "scope": scope,
            "status": status,
            "rejected": rejected,
            "records": records if is_taken else [],
        }
        with server.lock, open(server.output, "a", encoding="utf-8") as output:
            output.write(json.dumps(entry) + "\n")

        if mode == "hang":
            # For as long as the process runs.
            threading.Event().wait()
        if mode == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        return self.answer(status, kind, response.SerializeToString() if answer is None else answer, settings["headers"])

    def answer(self, status, kind, body, headers=None):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that closes its connection is not an error; a test without records is clearer than a traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output", help="the file that gets a JSON line for each request")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--store", action="store_true", help="keep the bodies only, synced before the answer")
    parser.add_argument("--certificate", help="PEM files: speak TLS")
    parser.add_argument("--key")
    arguments = parser.parse_args()

    server = Server(("127.0.0.1", arguments.port), Handler)
    server.lock = threading.Lock()
    server.requests = 0
    server.settings = DEFAULTS
    server.output = arguments.output
    server.is_store = arguments.store
    if arguments.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate, arguments.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
