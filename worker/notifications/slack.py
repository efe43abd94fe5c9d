"""The messages for Slack, as people read them."""

from collections.abc import Callable, Mapping
from typing import Any

from app.registry.notifications import Claimed
from app.words import BuildState, NotificationKind, known

# Slack refuses a block with more than 3,000 characters. Escaping can make up to five characters of one.
_LIMIT = 2_900
_QUOTED = 500


def body(message: Claimed, page: str | None) -> dict[str, Any]:
    """The body for an incoming webhook: blocks, and a text for places that show no blocks."""
    kind = known(NotificationKind, message.kind)
    # The data may come from another version, so each field may be missing.
    headline, lines = _TEXTS.get(kind, _other)(_Data(message.kind, message.data))
    text = "\n".join([f"*{headline}*", *lines])
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": text[:_LIMIT]}},
    ]
    if page is not None:
        details = {"type": "mrkdwn", "text": f"<{escaped(page)}|See it in the registry>"}
        blocks.append({"type": "context", "elements": [details]})
    return {"text": headline, "blocks": blocks, "unfurl_links": False}


def escaped(text: str) -> str:
    """The text so that Slack shows it as it is: nothing in it is a link, or calls somebody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class _Data:
    """The data of a message, each value as escaped text."""

    def __init__(self, kind: str, data: Mapping[str, Any]) -> None:
        self.kind = kind
        self._data = data

    def __getitem__(self, name: str) -> str:
        return self.get(name) or "?"

    def get(self, name: str) -> str | None:
        """None for what is null, empty or not there. `a.b` is field b of the object a."""
        value: Any = self._data
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None or value == "":
            return None
        # One line, and not longer than people read.
        shown = " ".join(str(value).split())
        return escaped(shown if len(shown) <= _QUOTED else shown[: _QUOTED - 1] + "…")

    def is_true(self, name: str) -> bool:
        return self._data.get(name) is True

    def counts(self) -> list[tuple[str, int]]:
        counts = self._data.get("counts")
        found = counts.items() if isinstance(counts, Mapping) else ()
        return [(escaped(str(name)), value) for name, value in found if isinstance(value, int) and value]


# A headline, and lines that follow it.
_Text = tuple[str, list[str]]


def _build_ended(data: _Data) -> _Text:
    what = "reproduction" if data["kind"] == "reproduce" else "build"
    lines = [f"Branch {data['branch']}, requested by {data['requested_by']}."]
    match known(BuildState, data["state"]):
        case BuildState.FAILED:
            lines.append(f"{data['failure.step']}: {data['failure.code']}: {data['failure.message']}")
        case BuildState.CANCELLED:
            lines.append(f"Cancelled by {data['cancelled_by']}.")
        case _:
            pass
    return f"The {what} of {data['prefix']} {_ENDS.get(data['state'], data['state'])}", lines


_ENDS = {
    BuildState.SUCCEEDED.value: "succeeded",
    BuildState.FAILED.value: "failed",
    BuildState.CANCELLED.value: "was cancelled",
}


def _verdict(data: _Data) -> _Text:
    by = data.get("by")
    if by is None:
        return f"{data['prefix']}: the validation's verdict is {data['verdict']}", [data["reason"]]
    headline = f"{data['prefix']}: {by} changed the verdict from {data['before']} to {data['verdict']}"
    return headline, [data["reason"]]


def _promoted(data: _Data) -> _Text:
    lines = [f"It replaces {data['replaces']}." if data.get("replaces") else "It is the first model there."]
    if data.is_true("override"):
        lines.append("A gate was closed, and the promotion overrode it.")
    return f"{data['prefix']} runs in {data['stage']} now, promoted by {data['by']}", lines + _note(data)


def _rolled_back(data: _Data) -> _Text:
    headline = f"{data['stage']} was rolled back from {data['replaces']} to {data['prefix']} by {data['by']}"
    return headline, _note(data)


def _note(data: _Data) -> list[str]:
    note = data.get("note")
    return [] if note is None else [f"Note: {note}"]


def _marked(data: _Data) -> _Text:
    return f"{data['prefix']} is marked for garbage collection", [data["reason.text"]]


def _restored(data: _Data) -> _Text:
    return f"{data['prefix']} is no longer marked for garbage collection", []


def _collected(data: _Data) -> _Text:
    return f"{data['prefix']} was collected", ["Its files are deleted. Its record and its history stay."]


def _collection_ended(data: _Data) -> _Text:
    what = "The dry run of a garbage collection" if data.is_true("dry_run") else "The garbage collection"
    state = {"stopped": "was stopped"}.get(data["state"], data["state"])
    lines = [f"Requested by {data['requested_by']}."]
    if counts := data.counts():
        lines.append(", ".join(f"{name.replace('_', ' ')}: {value:,}" for name, value in counts))
    if failure := data.get("failure"):
        lines.append(failure)
    return f"{what} {state}", lines


def _test(data: _Data) -> _Text:
    return "This is a test message of the tariff model registry", [f"Requested by {data['by']}."]


def _other(data: _Data) -> _Text:
    return f"{escaped(data.kind)}", []


_TEXTS: dict[NotificationKind | None, Callable[[_Data], _Text]] = {
    NotificationKind.BUILD_ENDED: _build_ended,
    NotificationKind.MODEL_VERDICT: _verdict,
    NotificationKind.STAGE_PROMOTED: _promoted,
    NotificationKind.STAGE_ROLLED_BACK: _rolled_back,
    NotificationKind.MODEL_MARKED: _marked,
    NotificationKind.MODEL_RESTORED: _restored,
    NotificationKind.MODEL_COLLECTED: _collected,
    NotificationKind.COLLECTION_ENDED: _collection_ended,
    NotificationKind.TEST: _test,
}
