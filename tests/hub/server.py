"""A stand-in of a model hub on loopback: what huggingface_hub asks one for, and nothing more."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a-token-that-nobody-may-see"
Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by name, newest last; `revisions` are branches and tags."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, revision: str = "main") -> str:
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        self.revisions[revision] = name
        return name

    def files(self, revision: str) -> Files | None:
        return self.commits.get(self.revisions.get(revision, revision))

    @property
    def main(self) -> Files:
        return self.commits[self.revisions["main"]]


class Hub:
    """Repositories by "models/owner/name" or "datasets/owner/name", and what was asked for.

    Attributes:
        cut: files of which no more than so many bytes are ever sent.
        sizes: what the listing claims of files, where it is not the truth.
        large: bytes from which a file is uploaded as git LFS.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.large = 1000
        self.requests: list[str] = []
        self.agents: set[str] = set()

    def add(self, name: str, files: Files, kind: str = "models", **options: Any) -> Repository:
        repository = self.repositories[f"{kind}/{name}"] = Repository(**options)
        repository.commit(files)
        return repository

    def downloads(self) -> list[str]:
        return [line for line in self.requests if line.startswith("GET") and "/resolve/" in line]


@contextmanager
def running_hub() -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):
    """An answer that is none of what was asked for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def _answer(self, handle: Any) -> None:
        self.hub.requests.append(f"{self.command} {unquote(self.path)}")
        self.hub.agents.add(self.headers.get("user-agent", ""))
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            handle([unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")])
        except _Refused:
            pass

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def _refuse(self, status: int, code: str = "") -> _Refused:
        self._json({"error": "refused"}, status, **({"X_Error_Code": code} if code else {}))
        return _Refused()

    def _is_known(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._is_known()):
            # as the real one: without a token nobody learns whether there is a private one
            raise self._refuse(404 if self._is_known() else 401, "RepoNotFound")
        if repository.gated:
            raise self._refuse(403, "GatedRepo")
        return repository

    def _files(self, repository: Repository, revision: str) -> Files:
        files = repository.files(revision)
        if files is None:
            raise self._refuse(404, "RevisionNotFound")
        return files

    def _get(self, parts: list[str]) -> None:
        match parts:
            case ["api", kind, owner, name, *rest]:
                repository = self._repository(f"{kind}/{owner}/{name}")
                revision = rest[1] if rest else "main"
                files = self._files(repository, revision)
                if rest[:1] == ["tree"]:
                    self._json([self._entry(path, data) for path, data in files.items()])
                else:
                    sha = repository.revisions.get(revision, revision)
                    self._json({"id": f"{owner}/{name}", "sha": sha, "siblings": []})
            case ["datasets", owner, name, "resolve", revision, *path]:
                self._resolve(f"datasets/{owner}/{name}", revision, "/".join(path))
            case [owner, name, "resolve", revision, *path]:
                self._resolve(f"models/{owner}/{name}", revision, "/".join(path))
            case _:
                raise self._refuse(404)

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        files = self._files(repository, revision)
        if path not in files:
            raise self._refuse(404, "EntryNotFound")
        self._file(path, files[path], repository.revisions.get(revision, revision))

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        size = self.hub.sizes.get(path, len(data))
        return {"type": "file", "path": path, "size": size, "oid": _digest(data)}

    def _file(self, path: str, data: bytes, commit: str) -> None:
        start = int(self.headers.get("range", "bytes=0-")[6:].split("-")[0])
        headers = {"ETag": f'"{_digest(data)}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.command == "GET" and path in self.hub.cut:
            headers["Content_Length"] = str(len(data) - start)
            self.close_connection = True
            self._send(206 if start else 200, data[start : self.hub.cut[path]], **headers)
        else:
            self._send(206 if start else 200, data[start:], **headers)

    def _post(self, parts: list[str]) -> None:
        if parts == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if not self._is_known():
            raise self._refuse(401)
        match parts:
            case ["api", "repos", "create"]:
                asked = json.loads(self.body)
                name = f"{asked['organization']}/{asked['name']}"
                if f"models/{name}" in self.hub.repositories:
                    self._json({"url": f"{self.hub.url}/{name}", "name": name}, 409)
                    return
                private = bool(asked.get("private")) or asked.get("visibility") == "private"
                self.hub.add(name, {".gitattributes": b"*.data filter=lfs\n"}, private=private)
                self._json({"url": f"{self.hub.url}/{name}", "name": name})
            case ["api", "models", owner, name, "preupload", _]:
                self._repository(f"models/{owner}/{name}")
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["size"] >= self.hub.large else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(self.body)["files"]
                ]
                self._json({"files": modes})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = json.loads(self.body)["objects"]
                actions = [
                    one | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
                    for one in objects
                ]
                self._json({"transfer": "basic", "objects": actions})
            case ["api", "models", owner, name, "commit", revision]:
                repository = self._repository(f"models/{owner}/{name}")
                self._commit(repository, revision, f"{owner}/{name}")
            case _:
                raise self._refuse(404)

    def _commit(self, repository: Repository, revision: str, name: str) -> None:
        files = dict(self._files(repository, revision))
        for line in self.body.splitlines():
            match json.loads(line):
                case {"key": "header", "value": header}:
                    if header.get("parentCommit") not in (None, repository.revisions[revision]):
                        raise self._refuse(412)
                case {"key": "file", "value": file}:
                    files[file["path"]] = base64.b64decode(file["content"])
                case {"key": "lfsFile", "value": file}:
                    files[file["path"]] = self.hub.blobs[file["oid"]]
                case {"key": "deletedFile", "value": file}:
                    del files[file["path"]]
        commit = repository.commit(files, revision)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _put(self, parts: list[str]) -> None:
        (_, digest) = parts
        assert _digest(self.body) == digest
        self.hub.blobs[digest] = self.body
        self._send(200, b"")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
