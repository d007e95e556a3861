"""A small Hub on 127.0.0.1: the endpoints that loading and publishing models and Spaces ask, in memory.

    with LoopbackHub() as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("org/name")

`hub.repositories` has a model as `org/name`, and a Space as `spaces/org/name`.

Bounded: it takes bodies of at most 64 MB and stops by itself after ten minutes. `cut_upload` and `cut_download` break
a connection after so many bytes; `fail_commit` answers with a status instead of committing.
"""

import base64
import json
import threading
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGEST_BODY, LIFETIME = 64_000_000, 600.0


class Repository:
    """Files by their names at each commit; the last commit is the head."""

    def __init__(self, private, sdk=None):
        self.private, self.sdk, self.commits = private, sdk, {}
        self.commit({".gitattributes": b""}, [])

    @property
    def head(self):
        return list(self.commits)[-1]

    @property
    def files(self):
        return self.commits[self.head]

    def commit(self, added, deleted):
        before = self.files if self.commits else {}
        files = {name: data for name, data in {**before, **added}.items() if name not in deleted or name in added}
        digest = sha1(str(len(self.commits)).encode())
        for name in sorted(files):
            digest.update(name.encode() + files[name])
        self.commits[digest.hexdigest()] = files
        return self.head

    def at(self, revision):
        return self.head if revision in (None, "main") else revision


class LoopbackHub:
    """The server, its repositories and what it was asked."""

    def __init__(self, token="hf_loopback"):
        self.token, self.repositories, self.requests = token, {}, []
        self.cut_upload = self.cut_download = self.fail_commit = None

    def __enter__(self):
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.timer = threading.Timer(LIFETIME, self.server.shutdown)
        self.timer.daemon = True
        self.timer.start()
        return self

    def __exit__(self, *error):
        self.timer.cancel()
        self.server.shutdown()
        self.server.server_close()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def environment(self, home):
        """For a process that knows no other Hub, with caches of its own."""
        return {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": self.token, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}


class Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.hub.requests.append(f"{self.command} {self.path}")
        if path[:2] == ["api", "whoami-v2"]:
            return self.whoami()
        if path[:1] == ["api"] and path[1:2] in (["models"], ["spaces"]) and len(path) >= 4:
            return self.repository(path[1], path[2:])
        if "resolve" in path[2:3]:
            return self.resolve("/".join(path[:2]), path[3], "/".join(path[4:]))
        return self.answer(404, {"error": "no such page"})

    def do_POST(self):
        self.hub.requests.append(f"{self.command} {self.path}")
        body = self.body()
        path = urlsplit(self.path).path.strip("/").split("/")
        if body is None:
            return None
        if path == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        if not self.is_allowed():
            return self.answer(401, {"error": "Invalid username or password."})
        content = body.decode()
        if path == ["api", "repos", "create"]:
            return self.create(json.loads(content))
        repository = self.hub.repositories.get(self.key(path[1], path[2:4]))
        if repository is None:
            return self.missing("RepoNotFound")
        if path[4] == "preupload":
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(content)["files"]]
            return self.answer(200, {"files": files})
        if path[4] == "commit":
            return self.commit(repository, path, [json.loads(line) for line in content.splitlines()])
        return self.answer(404, {"error": "no such page"})

    def whoami(self):
        if not self.is_allowed() or "Authorization" not in self.headers:
            return self.answer(401, {"error": "Invalid username or password."})
        return self.answer(200, {"name": "me", "type": "user", "orgs": [{"name": "org"}], "auth": {}})

    def create(self, wanted):
        types = {"model": "models", "space": "spaces"}
        kind, sdk = types[wanted.get("type", "model")], wanted.get("sdk")
        if (kind == "spaces") is (sdk is None):
            return self.answer(400, {"error": "a Space needs an SDK, and nothing else has one"})
        name = self.key(kind, (wanted.get("organization") or "me", wanted["name"]))
        if name in self.hub.repositories:
            return self.answer(409, {"error": "You already created this repo", "url": name})
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.hub.repositories[name] = Repository(bool(private), sdk)
        return self.answer(200, {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})

    def commit(self, repository, path, lines):
        if self.hub.fail_commit is not None:
            return self.answer(self.hub.fail_commit, {"error": "the loopback Hub was told to fail"})
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repository.head):
            return self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        added = {x["value"]["path"]: base64.b64decode(x["value"]["content"]) for x in lines if x["key"] == "file"}
        deleted = [x["value"]["path"] for x in lines if x["key"] == "deletedFile"]
        commit = repository.commit(added, deleted)
        url = f"{self.hub.endpoint}/{self.key(path[1], path[2:4])}/commit/{commit}"
        return self.answer(200, {"commitUrl": url, "commitOid": commit, "success": True})

    def key(self, kind, path):
        """The name of a repository among those of the Hub."""
        return "/".join(path if kind == "models" else (kind, *path))

    def repository(self, kind, path):
        name, rest = self.key(kind, path[:2]), path[2:]
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and "Authorization" not in self.headers) or not self.is_allowed():
            return self.missing("RepoNotFound")
        commit = repository.at(rest[1] if len(rest) > 1 else None)
        if commit not in repository.commits:
            return self.missing("RevisionNotFound")
        files = repository.commits[commit]
        if rest[:1] == ["tree"]:
            under = "/".join(rest[2:])
            if under:
                return self.missing("EntryNotFound")
            return self.answer(200, [self.entry(file, files[file]) for file in sorted(files)])
        task = next((line[14:] for line in self.card(files) if line.startswith("pipeline_tag: ")), None)
        siblings = [{"rfilename": file} for file in sorted(files)]
        name = "/".join(path[:2])
        info = {"_id": name, "id": name, "sha": commit, "private": repository.private, "tags": []}
        if kind == "spaces":
            return self.answer(200, {**info, "sdk": repository.sdk, "siblings": siblings})
        info["modelId"] = name
        return self.answer(200, {**info, "siblings": siblings, "pipeline_tag": task, "library_name": "transformers"})

    def card(self, files):
        return files.get("README.md", b"").decode().splitlines()

    def entry(self, file, data):
        return {"type": "file", "path": file, "size": len(data), "oid": sha1(data).hexdigest()}

    def resolve(self, name, revision, file):
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and "Authorization" not in self.headers) or not self.is_allowed():
            return self.missing("RepoNotFound")
        commit = repository.at(revision)
        if commit not in repository.commits:
            return self.missing("RevisionNotFound")
        data = repository.commits[commit].get(file)
        if data is None:
            return self.missing("EntryNotFound", commit)
        start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        headers = {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.send(206 if start else 200, data[start:], "application/octet-stream", headers)

    def is_allowed(self):
        """Whether there is no token, or ours."""
        return self.headers.get("Authorization") in (None, f"Bearer {self.hub.token}")

    def missing(self, code, commit=None):
        headers = {"X-Error-Code": code, "X-Error-Message": code} | ({"X-Repo-Commit": commit} if commit else {})
        return self.answer(404, {"error": code}, headers)

    def answer(self, status, content, headers=None):
        return self.send(status, json.dumps(content).encode(), "application/json", headers or {})

    def send(self, status, data, kind, headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        cut = self.hub.cut_download
        if cut is not None and len(data) > cut:
            self.wfile.write(data[:cut])
            self.close_connection = True
            return self.connection.close()
        self.wfile.write(data)
        return None

    def body(self):
        """The request's body; None, with the connection broken, where it is too large or is to be cut."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            return self.chunked_body()
        length = int(self.headers.get("Content-Length", 0))
        cut = self.hub.cut_upload
        if length > LARGEST_BODY or (cut is not None and length > cut):
            self.rfile.read(min(length, cut or 0))
            self.close_connection = True
            self.connection.close()
            return None
        return self.rfile.read(length)

    def chunked_body(self):
        data, cut = b"", self.hub.cut_upload
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
            if len(data) > min(LARGEST_BODY, LARGEST_BODY if cut is None else cut):
                self.close_connection = True
                self.connection.close()
                return None
        self.rfile.readline()
        return data
