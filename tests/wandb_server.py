"""As much of W&B's server as a run and ``wandb sync`` need: what they send is kept, and nothing leaves this machine."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4  # of the length that W&B wants


@dataclass
class Bucket:
    """A run as the server has it."""

    name: str = ""
    group: str = ""
    history: dict[int, dict[str, Any]] = field(default_factory=dict)  # by line
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    made: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)


@dataclass
class Server:
    url: str
    runs: dict[str, Bucket] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "l2q", "entity": {"id": "e", "name": "me"}}
        if operation == "Viewer":
            viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "admin": False}
            return {"viewer": viewer | {"teams": {"edges": []}}}
        if operation == "RunResumeStatus":
            run = self.runs.get(given["name"])
            return {"model": None if run is None else project | {"bucket": _resumed(given["name"], run)}}
        if operation == "UpsertBucket":
            new = given["name"] not in self.runs
            run = self.runs.setdefault(given["name"], Bucket())
            run.name, run.group = given["displayName"] or run.name, given["groupName"] or run.group
            bucket = {"id": given["name"], "name": given["name"], "displayName": run.name, "config": "{}"}
            more = {
                "project": project,
                "historyLineCount": len(run.history),
                "description": None,
                "sweepName": None,
            }
            return {"upsertBucket": {"bucket": bucket | more, "inserted": new}}
        if operation == "CreateArtifact":
            given = given["input"]
            self.artifacts.append(given["artifactTypeName"])
            self.runs[given["runName"]].made.append(given["artifactTypeName"])
            sequence = {"id": "s", "latestArtifact": None}
            number = str(len(self.artifacts) - 1)
            return {
                "createArtifact": {
                    "artifact": {"id": number, "state": "COMMITTED", "artifactSequence": sequence}
                }
            }
        if operation == "UseArtifact":
            given = given["input"]
            self.runs[given["runName"]].used.append(self.artifacts[int(given["artifactID"])])
            return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}
        if operation == "ArtifactType":
            return {"project": {"artifact": None}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/file"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        return {}

    def stream(self, run_id: str, sent: dict[str, Any]) -> None:
        run = self.runs[run_id]
        for name, chunk in (sent.get("files") or {}).items():
            lines = [
                json.loads(line)
                for line in chunk["content"]
                if name.endswith(("history.jsonl", "summary.json"))
            ]
            if name == "wandb-history.jsonl":
                run.history |= {chunk["offset"] + number: line for number, line in enumerate(lines)}
            elif name == "wandb-summary.json":
                run.summary = lines[-1]
        if "exitcode" in sent:
            run.exit_code = sent["exitcode"]


def _resumed(run_id: str, run: Bucket) -> dict[str, Any]:
    tail = [json.dumps(run.history[line]) for line in sorted(run.history)[-1:]]
    return {
        "id": run_id,
        "name": run_id,
        "displayName": run.name,
        "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": len(run.history),
        "logLineCount": 0,
        "eventsLineCount": 0,
        "historyTail": json.dumps(tail),
        "eventsTail": "[]",
        "config": "{}",
        "wandbConfig": "{}",
        "tags": [],
    }


@contextmanager
def wandb_server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _read(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _reply(self, values: dict[str, Any]) -> None:
            body = json.dumps(values).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._reply({})

        def do_PUT(self) -> None:
            self._read()
            self._reply({})

        def do_POST(self) -> None:
            sent = json.loads(self._read() or "{}")
            if self.path == "/graphql":
                words = re.findall(r"(?:query|mutation)\s+(\w+)", sent["query"])
                name = sent.get("operationName") or (words or [""])[0]
                self._reply({"data": server.answer(name, sent.get("variables") or {})})
                return
            if match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                server.stream(match[1], sent)
            self._reply({})

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
