"""A stand-in for the Hugging Face Hub on this machine: the few calls that its library makes for a dataset."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

_LFS = (".mp4", ".parquet")
Files = dict[str, bytes]
Rule = Callable[[str, str], "int | None"]


class Hub:
    """Repositories, each with commits, branches and tags.

    Attributes:
        repositories: name -> what it has.
        requests: method and path of all so far.
        rule: may answer in its place, with a status.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.rule: Rule = lambda method, path: None
        self.objects: dict[str, bytes] = {}


class Repository:
    """Commits, in order, and what points to them."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.commits: dict[str, Files] = {}
        self.refs: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.add({".gitattributes": b""}, "main")

    def add(self, files: Files, branch: str) -> str:
        """Make a commit of all of a branch's files."""
        sha = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha

    def sha(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit means."""
        return (
            self.refs.get(revision)
            or self.tags.get(revision)
            or (revision if revision in self.commits else None)
        )

    def files(self, revision: str = "main") -> Files:
        """What is there, but for git's own."""
        sha = self.sha(revision)
        assert sha is not None
        return {place: data for place, data in self.commits[sha].items() if place != ".gitattributes"}


def _described(place: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    found: dict[str, Any] = {"type": "file", "path": place, "size": len(data), "oid": blob}
    if place.endswith(_LFS):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}
    return found


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _missing(self, code: str) -> None:
        self._answer({"error": code}, 404, {"X-Error-Code": code, "X-Error-Message": code})

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path = url.path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        self.hub.requests.append((self.command, path))
        status = self.hub.rule(self.command, path)
        if status is not None:
            self._answer({"error": "no, says the server"}, status)
            return
        for pattern, act in _ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                act(self, *map(unquote, match.groups()), body=body, query=parse_qs(url.query))  # type: ignore[operator]
                return
        self._answer({"error": f"unknown {self.command} {path}"}, 501)

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().strip(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _at(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._missing("RepoNotFound")
            return None
        sha = repository.sha(revision)
        if sha is None:
            self._missing("RevisionNotFound")
            return None
        return repository, sha

    def create(self, *, body: bytes, query: Any) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        there = name in self.hub.repositories
        if not there:
            self.hub.repositories[name] = Repository(
                bool(asked.get("private")) or asked.get("visibility") == "private"
            )
        self._answer({"url": f"{self.hub.url}/datasets/{name}", "id": name}, 409 if there else 200)

    def info(self, name: str, revision: str = "main", *, body: bytes, query: Any) -> None:
        if (found := self._at(name, revision)) is not None:
            repository, sha = found
            siblings = [{"rfilename": place} for place in repository.commits[sha]]
            fields = {"id": name, "sha": sha, "private": repository.private, "tags": [], "siblings": siblings}
            self._answer(fields | {"downloads": 0, "likes": 0, "disabled": False, "gated": False})

    def tree(self, name: str, revision: str, inner: str = "", *, body: bytes, query: Any) -> None:
        if (found := self._at(name, revision)) is None:
            return
        repository, sha = found
        files = {p: d for p, d in repository.commits[sha].items() if not inner or p.startswith(f"{inner}/")}
        listed = [_described(place, data) for place, data in files.items()]
        folders = {p.rsplit("/", n)[0] for p in files for n in range(1, p.count("/") + 1)}
        listed += [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in sorted(folders)]
        if query.get("recursive", ["False"])[0].lower() != "true":
            depth = inner.count("/") + 1 if inner else 0
            listed = [one for one in listed if one["path"].count("/") == depth]
        self._answer(listed)

    def paths(self, name: str, revision: str, *, body: bytes, query: Any) -> None:
        if (found := self._at(name, revision)) is None:
            return
        repository, sha = found
        form = parse_qs(body.decode())
        wanted = form.get("paths") or json.loads(body)["paths"] if not form else form["paths"]
        files = repository.commits[sha]
        listed = [_described(place, files[place]) for place in wanted if place in files]
        listed += [
            {"type": "directory", "path": place, "oid": "0" * 40, "size": 0}
            for place in wanted
            if any(other.startswith(f"{place}/") for other in files)
        ]
        self._answer(listed)

    def preupload(self, name: str, revision: str, *, body: bytes, query: Any) -> None:
        self._answer(
            {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(_LFS) else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for one in json.loads(body)["files"]
                ]
            }
        )

    def batch(self, name: str, *, body: bytes, query: Any) -> None:
        objects = []
        for one in json.loads(body)["objects"]:
            there = one["oid"] in self.hub.objects
            action = {"upload": {"href": f"{self.hub.url}/store/{one['oid']}", "header": {}}}
            objects.append({"oid": one["oid"], "size": one["size"], **({} if there else {"actions": action})})
        self._answer(
            {"transfer": "basic", "objects": objects},
            headers={"Content-Type": "application/vnd.git-lfs+json"},
        )

    def store(self, oid: str, *, body: bytes, query: Any) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._answer({})

    def commit(self, name: str, branch: str, *, body: bytes, query: Any) -> None:
        if (found := self._at(name, branch)) is None:
            return
        repository, sha = found
        parent = json.loads(body.decode().splitlines()[0])["value"].get("parentCommit")
        if parent not in (None, sha):
            self._answer({"error": "A commit has happened since. Please refresh and try again."}, 412)
            return
        files = dict(repository.commits[sha])
        for line in body.decode().splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif one["key"] == "deletedFile":
                del files[value["path"]]
        made = repository.add(files, branch)
        self._answer(
            {"success": True, "commitOid": made, "commitUrl": f"{self.hub.url}/datasets/{name}/commit/{made}"}
        )

    def branch(self, name: str, branch: str, *, body: bytes, query: Any) -> None:
        repository = self.hub.repositories[name]
        there = branch in repository.refs
        repository.refs.setdefault(branch, repository.refs["main"])
        self._answer({}, 409 if there else 200)

    def tag(self, name: str, revision: str, *, body: bytes, query: Any) -> None:
        if (found := self._at(name, revision)) is not None:
            found[0].tags[json.loads(body)["tag"]] = found[1]
            self._answer({})

    def untag(self, name: str, tag: str, *, body: bytes, query: Any) -> None:
        repository = self.hub.repositories[name]
        if repository.tags.pop(tag, None) is None:
            self._missing("RevisionNotFound")
        else:
            self._answer({})

    def card(self, *, body: bytes, query: Any) -> None:
        self._answer({"errors": [], "warnings": []})

    def refs(self, name: str, *, body: bytes, query: Any) -> None:
        repository = self.hub.repositories[name]
        self._answer(
            {
                kind: [{"name": n, "ref": f"refs/{n}", "targetCommit": sha} for n, sha in known.items()]
                for kind, known in (
                    ("branches", repository.refs),
                    ("tags", repository.tags),
                    ("converts", {}),
                )
            }
        )

    def resolve(self, name: str, revision: str, place: str, *, body: bytes, query: Any) -> None:
        if (found := self._at(name, revision)) is None:
            return
        repository, sha = found
        data = repository.commits[sha].get(place)
        if data is None:
            self._missing("EntryNotFound")
            return
        described = _described(place, data)
        etag = described["lfs"]["oid"] if "lfs" in described else described["oid"]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{etag}"'}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span is None:
            self._answer(data, 200, headers)
            return
        start, end = int(span[1]), min(int(span[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self._answer(data[start : end + 1], 206, headers)


_NAME = r"([^/]+/[^/]+)"
_ROUTES = [
    (r"POST /api/repos/create", _Handler.create),
    (rf"GET /api/datasets/{_NAME}", _Handler.info),
    (rf"GET /api/datasets/{_NAME}/revision/([^/]+)", _Handler.info),
    (rf"GET /api/datasets/{_NAME}/tree/([^/]+)", _Handler.tree),
    (rf"GET /api/datasets/{_NAME}/tree/([^/]+)/(.+)", _Handler.tree),
    (rf"POST /api/datasets/{_NAME}/paths-info/([^/]+)", _Handler.paths),
    (rf"POST /api/datasets/{_NAME}/preupload/([^/]+)", _Handler.preupload),
    (rf"POST /datasets/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /store/([0-9a-f]+)", _Handler.store),
    (rf"POST /api/datasets/{_NAME}/commit/([^/]+)", _Handler.commit),
    (rf"POST /api/datasets/{_NAME}/branch/([^/]+)", _Handler.branch),
    (rf"POST /api/datasets/{_NAME}/tag/([^/]+)", _Handler.tag),
    (rf"DELETE /api/datasets/{_NAME}/tag/([^/]+)", _Handler.untag),
    (rf"GET /api/datasets/{_NAME}/refs", _Handler.refs),
    (r"POST /api/validate-yaml", _Handler.card),
    (rf"(?:GET|HEAD) /datasets/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Run a stand-in, and have the real library speak to it."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub = Hub(server.server_port)
    handler.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        patch.setenv("HF_TOKEN", "hf_notatoken")
        from huggingface_hub import constants

        # Read once, when the library was loaded.
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        yield hub
    server.shutdown()
    server.server_close()
    thread.join()
