"""GitHub, as a workflow and the registry see it: the issuer of identity tokens, and the REST API."""

import json
import subprocess
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

AUDIENCE = "https://registry.example.org"
REPOSITORY = "customs/tariff-models"
JOB_TOKEN = "of-the-job"


class GitHub:
    """One repository on GitHub. Its branches are those of a bare git repository, where there is one."""

    def __init__(self, repository: Path | None = None) -> None:
        self.keys = [RSAKey.generate_key(2048, auto_kid=True)]
        self.asked = 0
        self.away = False
        self.repository = repository
        self.pull_requests: dict[int, dict[str, Any]] = {}
        self.comments: dict[int, dict[str, Any]] = {}
        # What the identity tokens of the running job say, beside the usual.
        self.of_job: dict[str, Any] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._count = 0
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        """The REST API."""
        match method, path.removeprefix(f"/repos/{REPOSITORY}/").split("/"):
            case "GET", ["issues", number, "comments"]:
                found = [one for one in self.comments.values() if one["number"] == int(number)]
                return 200, _page(found, query)
            case "POST", ["issues", number, "comments"]:
                return 201, self._comment(int(number), body["body"])
            case "PATCH", ["issues", "comments", comment]:
                kept = self.comments[int(comment)]
                kept["body"] = body["body"]
                return 200, kept
            case "GET", ["pulls"]:
                found = [one for one in self.pull_requests.values() if one["state"] == query["state"]]
                return 200, _page([self._with_head(one) for one in found], query)
            case "POST", ["pulls"]:
                return 201, self.open(body["title"], body["head"], body["base"])
            case "PATCH", ["pulls", number]:
                self.pull_requests[int(number)]["state"] = body["state"]
                return 200, self.pull_requests[int(number)]
            case "PUT", ["pulls", number, "merge"]:
                return self._merge(int(number), body["sha"])
            case "DELETE", ["git", "refs", "heads", *branch]:
                self.git("update-ref", "-d", f"refs/heads/{'/'.join(branch)}")
                return 204, None
        return 404, {"message": "Not Found"}

    def open(self, title: str, branch: str, base: str = "main") -> dict[str, Any]:
        number = len(self.pull_requests) + 1
        self.pull_requests[number] = {
            "number": number,
            "title": title,
            "state": "open",
            "created_at": datetime.now(UTC).isoformat(),
            "head": {"ref": branch, "sha": "", "repo": {"id": 1}},
            "base": {"ref": base, "repo": {"id": 1}},
        }
        return self._with_head(self.pull_requests[number])

    def _with_head(self, pull_request: dict[str, Any]) -> dict[str, Any]:
        head = pull_request["head"]
        return pull_request | {"head": head | {"sha": self.git("rev-parse", f"refs/heads/{head['ref']}")}}

    def _comment(self, number: int, body: str) -> dict[str, Any]:
        made: dict[str, Any] = {"id": len(self.comments) + 1, "number": number, "body": body}
        self.comments[made["id"]] = made
        return made

    def _merge(self, number: int, sha: str) -> tuple[int, Any]:
        pull_request = self._with_head(self.pull_requests[number])
        if pull_request["head"]["sha"] != sha:
            return 409, {"message": "Head branch was modified. Review and try the merge again."}
        base = f"refs/heads/{pull_request['base']['ref']}"
        tree = self.git("merge-tree", "--write-tree", base, sha)
        who = ("-c", "user.name=GitHub", "-c", "user.email=noreply@example.org")
        self.git(
            "update-ref", base, self.git(*who, "commit-tree", tree, "-p", base, "-p", sha, "-m", "Merge")
        )
        self.pull_requests[number]["state"] = "closed"
        self.pull_requests[number]["merged"] = True
        return 200, {"merged": True}

    def git(self, *arguments: str) -> str:
        assert self.repository is not None
        done = subprocess.run(
            ["git", "-C", self.repository, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def claims(self, **changed: Any) -> dict[str, Any]:
        self._count += 1
        now = int(time.time())
        ref = "refs/pull/12/merge"
        claims = {
            "iss": self.address,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "jti": f"id-{self._count}",
            "sub": "repo:customs/tariff-models:pull_request",
            "repository": "customs/tariff-models",
            "repository_id": "728113940",
            "repository_owner_id": "9919",
            "job_workflow_ref": f"customs/tariff-models/.github/workflows/model.yml@{ref}",
            "ref": ref,
            "event_name": "pull_request",
            "run_id": "42",
            "run_attempt": "1",
            "sha": "a" * 40,
        }
        whole = claims | self.of_job | changed
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, key: Any = None, header: dict[str, Any] | None = None, **changed: Any) -> str:
        key = key or self.keys[-1]
        header = header or {"alg": "RS256", "kid": key.kid}
        return jwt.encode(header, self.claims(**changed), key, algorithms=[header["alg"]])


def _page(found: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    size = int(query["per_page"])
    return found[size * (int(query["page"]) - 1) :][:size]


def _handler(github: GitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if github.away:
                self.send_error(503)
            elif self.path.endswith("/openid-configuration"):
                self.send(200, {"jwks_uri": f"{github.address}/jwks"})
            elif self.path == "/jwks":
                github.asked += 1
                self.send(200, {"keys": [key.as_dict(private=False) for key in github.keys]})
            elif self.path.startswith("/identity"):
                # Where a job asks for its identity, with its audience in the query.
                assert self.headers["Authorization"] == f"Bearer {JOB_TOKEN}"
                query = parse_qs(urlsplit(self.path).query)
                assert query["api-version"] == ["2.0"]
                self.send(200, {"value": github.token(aud=query["audience"][0])})
            else:
                self.of_api()

        def of_api(self) -> None:
            assert self.headers["Authorization"] == f"Bearer {JOB_TOKEN}"
            where = urlsplit(self.path)
            content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            query = {name: values[0] for name, values in parse_qs(where.query).items()}
            self.send(*github.answer(self.command, where.path, query, json.loads(content or b"{}")))

        do_POST = do_PATCH = do_PUT = do_DELETE = of_api

        def send(self, status: int, document: Any) -> None:
            content = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
