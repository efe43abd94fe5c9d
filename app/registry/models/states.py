"""What garbage collection leaves of a model: whether its files may be handed out, and why not."""

from app.db.tables import Model
from app.registry.errors import ModelCollected, ModelMarked, NotKept
from app.words import ModelState


def not_kept(model: Model) -> NotKept | None:
    """Why nothing can be done with the model's files. None for a model that is kept."""
    state = ModelState(model.state)
    if state is ModelState.KEPT or model.marked_at is None:
        return None
    reason = model.mark_reason or {}
    why = f"{reason.get('text', 'no reason is recorded')} (marked at {since(model)})"
    if state.gone:
        message = (
            f"{model.prefix} was collected: {why}. Its files are deleted and cannot be restored. Its record, "
            f"lineage and provenance stay: GET /models/{model.prefix}."
        )
        kind: type[NotKept] = ModelCollected
    else:
        message = (
            f"{model.prefix} is marked for garbage collection: {why}. "
            f"POST /models/{model.prefix}/restore keeps it, until its files are deleted."
        )
        kind = ModelMarked
    code = str(reason.get("code", "unknown"))
    return kind(message, prefix=model.prefix, state=state, since=model.marked_at, reason=code)


def refuse_unless_kept(model: Model) -> None:
    """Raises ModelMarked and ModelCollected."""
    if (refusal := not_kept(model)) is not None:
        raise refusal


def since(model: Model) -> str:
    """When the model was marked."""
    return f"{model.marked_at:%Y-%m-%dT%H:%M:%SZ}"
