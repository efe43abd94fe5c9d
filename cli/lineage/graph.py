"""`tariff-registry lineage`: what a model was made from, and where it went."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.text import Text

from cli.answers import read
from cli.arguments import model_prefix
from cli.client import path
from cli.output import plain
from cli.shell import Token, Url, client_of, console, exit_statuses


@dataclass(frozen=True)
class Node:
    """An input, a build, a model or a promotion."""

    id: str
    type: str
    name: str
    at: str | None
    kind: str | None
    sha256: str | None
    size_bytes: int | None
    origin: str | None
    details: Mapping[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            id=str(document["id"]),
            type=str(document["type"]),
            name=str(document["name"]),
            at=document["at"],
            kind=document["kind"],
            sha256=document["sha256"],
            size_bytes=document["size"],
            origin=document["origin"],
            details=dict(document["details"]),
        )


@dataclass(frozen=True)
class Output:
    """A file that the build made, or a file inside it, with its path."""

    name: str
    sha256: str | None
    size_bytes: int

    @classmethod
    def all_of(cls, document: Mapping[str, Any]) -> Iterator[Self]:
        """The file, then those inside it."""
        name = str(document["name"])
        yield cls(name, document["sha256"], int(document["size"]))
        for inside in document["contents"]:
            yield cls(f"{inside['path']} in {name}", inside["sha256"], int(inside["size"]))


@dataclass(frozen=True)
class Lineage:
    """The graph of a model. Each edge has the ids of two nodes, and how the first led to the second."""

    prefix: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str, str], ...]
    # An imported model has none, and a registry of an earlier release does not tell.
    outputs: tuple[Output, ...]
    not_known: tuple[str, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        edges = ((str(one["source"]), str(one["type"]), str(one["target"])) for one in document["edges"])
        made = document.get("outputs") or {}
        return cls(
            str(document["prefix"]),
            tuple(map(Node.of, document["nodes"])),
            tuple(edges),
            tuple(output for file in made.get("files", ()) for output in Output.all_of(file)),
            tuple(map(str, document["not_known"])),
        )

    def typed(self, word: str) -> Iterator[Node]:
        return (node for node in self.nodes if node.type == word)


def lineage(
    prefix: Annotated[str, typer.Argument(help="The model, such as 0.0.2-aff1242.")],
    url: Url = None,
    token: Token = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")] = False,
) -> None:
    """Show what a model was made from, with digests, and where it was promoted."""
    with exit_statuses():
        with client_of(url, token) as client:
            answer = client.get(path("models", model_prefix(prefix), "lineage"))
        found = read(answer, Lineage.of)
        if as_json:
            typer.echo(json.dumps(answer, indent=2))
        else:
            show(console, found)


def show(out: Console, found: Lineage) -> None:
    """One line for each thing, however narrow the terminal is, because digests are there to be copied."""
    for text, style in _lines(found):
        out.print(Text(plain(text), style), soft_wrap=True)


def _lines(found: Lineage) -> Iterator[tuple[str, str]]:
    """Each line, and its style."""
    for model in found.typed("model"):
        if model.name == found.prefix:
            sha, branch = model.details.get("sha"), model.details.get("branch")
            of = f"commit {sha}" + (f" of {branch}" if branch else "")
            verdict = model.details.get("verdict")
            yield f"{model.name}  {of}  {model.details.get('origin')} {model.at}  {verdict}", "bold"
    for build in found.typed("build"):
        who = build.details.get("requested_by")
        yield f"build {build.id.partition(':')[2]}  {_how(found, build.id)}, requested by {who}", ""
    yield from _inputs(list(found.typed("input")))
    if found.outputs:
        yield "files", ""
    names = max((len(one.name) for one in found.outputs), default=0)
    for one in found.outputs:
        yield f"  {one.name:<{names}}  {one.sha256 or '':<64}  {one.size_bytes:,} bytes", ""
    for baseline in found.typed("model"):
        if baseline.name != found.prefix:
            yield f"{_how(found, baseline.id)}: {baseline.name}", ""
    promotions = list(found.typed("promotion"))
    if promotions:
        yield "promoted to", ""
    for promotion in promotions:
        words = [word for word in ("override", "rollback") if promotion.details.get(word)]
        more = f"  ({', '.join(words)})" if words else ""
        yield f"  {promotion.name:<11}  {promotion.at}  by {promotion.details.get('promoted_by')}{more}", ""
    for sentence in found.not_known:
        yield f"not known: {sentence}", "yellow"


def _inputs(inputs: Sequence[Node]) -> Iterator[tuple[str, str]]:
    if inputs:
        yield "made from", ""
    kinds = max((len(node.kind or "") for node in inputs), default=0)
    names = max((len(node.name) for node in inputs), default=0)
    for node in inputs:
        size = "" if node.size_bytes is None else f"{node.size_bytes:,} bytes  "
        digest = node.sha256 or ""
        yield f"  {node.kind or '':<{kinds}}  {node.name:<{names}}  {digest:<64}  {size}{_origin(node)}", ""
        for word, said in (("missing_since", "is missing since"), ("collected_at", "was collected at")):
            if node.details.get(word) is not None:
                yield f"    its content {said} {node.details[word]}", "yellow"


def _how(found: Lineage, node: str) -> str:
    """How the node led to others, in the words of the API."""
    words = dict.fromkeys(word for source, word, _ in found.edges if source == node)
    return ", ".join(words).replace("_", " ") or "none of its inputs"


def _origin(node: Node) -> str:
    """Where it was fetched from, if that is known. The copy in the bucket follows from the digest."""
    return str(node.details.get("fetched_from") or node.origin or "")
