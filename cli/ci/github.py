"""GitHub, as a workflow uses it: pull requests, their comments, and the files that steps write to."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx

from cli.answers import ApiError, read
from cli.arguments import ArgumentError

_PAGE = 100


@dataclass(frozen=True)
class PullRequest:
    """An open pull request. `branch` is the branch that it wants to merge, and `sha` that branch's commit."""

    number: int
    branch: str
    sha: str
    created_at: datetime
    from_fork: bool

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        head, base = document["head"], document["base"]
        return cls(
            number=int(document["number"]),
            branch=str(head["ref"]),
            sha=str(head["sha"]),
            created_at=datetime.fromisoformat(document["created_at"]),
            # The repository of a fork that was deleted is null.
            from_fork=head["repo"] is None or head["repo"]["id"] != base["repo"]["id"],
        )


class GitHub:
    """The REST API for one repository, with the token of the job."""

    def __init__(self, api: str, repository: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=f"{api.rstrip('/')}/repos/{repository}",
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            transport=httpx.HTTPTransport(retries=2),
            timeout=30,
        )

    @classmethod
    def of_environment(cls) -> Self:
        """Raises ArgumentError outside a workflow."""
        api = os.environ.get("GITHUB_API_URL", "https://api.github.com")
        repository, token = os.environ.get("GITHUB_REPOSITORY"), os.environ.get("GITHUB_TOKEN")
        if not repository or not token:
            message = (
                "GITHUB_REPOSITORY or GITHUB_TOKEN is not set. Run this in a workflow of GitHub Actions, "
                "with `GITHUB_TOKEN: ${{ github.token }}` in the step's env."
            )
            raise ArgumentError(message)
        return cls(api, repository, token)

    def comment(self, number: int, body: str, marker: str) -> None:
        """Write the comment with this marker, or replace the one that is there. Raises ApiError."""
        whole = f"<!-- {marker} -->\n{body}"
        for comment in self._pages(f"issues/{number}/comments"):
            if str(comment["body"]).startswith(f"<!-- {marker} -->"):
                self._call("PATCH", f"issues/comments/{comment['id']}", {"body": whole})
                return
        self._call("POST", f"issues/{number}/comments", {"body": whole})

    def open(self, title: str, branch: str, base: str, body: str) -> PullRequest:
        """Raises ApiError."""
        wanted = {"title": title, "head": branch, "base": base, "body": body}
        return read(self._call("POST", "pulls", wanted), PullRequest.of)  # type: ignore[arg-type]

    def pull_requests(self) -> list[PullRequest]:
        """The open ones. Raises ApiError."""
        found = self._pages("pulls", state="open")
        return [read(one, PullRequest.of) for one in found]  # type: ignore[arg-type]

    def merge(self, number: int, sha: str) -> None:
        """Merge it, if its branch is still at this commit, which stays what it is. Raises ApiError."""
        self._call("PUT", f"pulls/{number}/merge", {"sha": sha, "merge_method": "merge"})

    def close(self, pull_request: PullRequest, why: str) -> None:
        """Close it with a comment, and delete its branch. Raises ApiError."""
        self._call("POST", f"issues/{pull_request.number}/comments", {"body": why})
        self._call("PATCH", f"pulls/{pull_request.number}", {"state": "closed"})
        self.delete_branch(pull_request.branch)

    def delete_branch(self, branch: str) -> None:
        """Raises ApiError."""
        self._call("DELETE", f"git/refs/heads/{branch}", gone_is_fine=True)

    def _pages(self, path: str, **parameters: str) -> Iterator[dict[str, Any]]:
        page = 1
        while True:
            asked = {**parameters, "per_page": str(_PAGE), "page": str(page)}
            found = self._call("GET", path, parameters=asked)
            yield from found
            if len(found) < _PAGE:
                return
            page += 1

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        gone_is_fine: bool = False,
        parameters: Mapping[str, str] | None = None,
    ) -> Any:
        try:
            response = self._http.request(method, f"/{path}", json=body, params=parameters)
        except httpx.HTTPError as exc:
            message = f"GitHub does not answer ({exc or type(exc).__name__}). Run the job again."
            raise ApiError(message, passes=True) from exc
        if gone_is_fine and response.status_code in (404, 422):
            return None
        try:
            document = response.json() if response.content else None
        except ValueError:
            document = None
        if response.is_success:
            return document
        said = document.get("message") if isinstance(document, dict) else response.reason_phrase
        message = (
            f"GitHub refused {method} {path}: {said} ({response.status_code}). Look at the permissions of "
            "the job, and at the rules of the branch."
        )
        raise ApiError(message, response.status_code)


def write_outputs(**values: str) -> None:
    """Hand values to later steps of the job. Outside a workflow this does nothing."""
    target = os.environ.get("GITHUB_OUTPUT")
    if not target:
        return
    for name, value in values.items():
        if "\n" in value or "\r" in value:
            message = f"The output {name} has several lines, which no output of this command should have."
            raise ValueError(message)
    with Path(target).open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
