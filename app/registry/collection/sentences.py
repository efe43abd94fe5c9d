"""The reasons to keep and to collect a model, as plain sentences."""

from dataclasses import dataclass

from app.registry.collection.retention import Context, Facts, Judgement
from app.words import CollectReason, KeepReason

_KEPT_BECAUSE: dict[KeepReason, str] = {
    KeepReason.REACHED_STAGING: "It was promoted to staging.",
    KeepReason.REACHED_PRODUCTION: "It was promoted to production.",
    KeepReason.RUNS_IN_A_STAGE: "A stage runs it now.",
    KeepReason.ROLLBACK_TARGET: "It is among the last models of a stage, which are targets of a rollback.",
    KeepReason.SUPERSEDED_RECENTLY: "Another model took its place in a stage, but not long enough ago.",
    KeepReason.NOT_RELEASED: (
        "It reached staging or production, and no administrator has released it, or set a rule that does."
    ),
    KeepReason.LATEST_IN_DEVELOPMENT: "It is the latest model in development.",
    KeepReason.BRANCH_EXISTS: "Its branch exists.",
    KeepReason.FORMER_MAIN_BRANCH: "It was built on the main branch, which has another name now.",
    KeepReason.BRANCH_NOT_RECORDED: "Its build did not record a branch.",
    KeepReason.COMMIT_ON_BRANCH: "Its commit is on a branch that is not merged.",
    KeepReason.COMMIT_UNKNOWN: "Its commit has not been found in the git repository.",
    KeepReason.BRANCHES_UNKNOWN: "The branches of the git repository are not known at the moment.",
    KeepReason.ACTIVE_BUILD: "A build of its prefix is queued or running.",
    KeepReason.ACTIVE_REPRODUCTION: "It is being reproduced.",
    KeepReason.RETRY_WINDOW: "A build of its prefix has ended without success, and can still be retried.",
    KeepReason.VALIDATION_BASELINE: "New models are compared with it.",
    KeepReason.PINNED: "It is pinned.",
    KeepReason.TOO_YOUNG: "It has not reached the minimum age.",
    KeepReason.RESTORED_RECENTLY: "Its mark was taken back less than the minimum age ago.",
    KeepReason.NEWEST_PASSED: "It is among the newest models that passed their validation.",
    KeepReason.BRANCH_RULE: "A setting keeps the models of its branch.",
    KeepReason.VERSION_RULE: "A setting keeps the models of its version.",
}
_COLLECTED_BECAUSE: dict[CollectReason, str] = {
    CollectReason.BRANCH_GONE: "Its branch is gone, and it never reached staging or production.",
    CollectReason.COMMIT_ON_NO_BRANCH: (
        "Its commit is on no branch but the main one, and it never reached staging or production."
    ),
    CollectReason.RETIRED: (
        "Other models have long taken its place in the stages, and an administrator has released it."
    ),
    CollectReason.RETIRED_BY_RULE: (
        "Other models have long taken its place in the stages, and a rule of an administrator releases it."
    ),
}
# So many branches are named at most.
_NAMED = 3


@dataclass(frozen=True)
class Explained:
    """A reason, and what it means for this model."""

    code: KeepReason | CollectReason
    text: str


def explain(facts: Facts, judgement: Judgement, context: Context) -> tuple[Explained, ...]:
    """The reasons of a judgement as sentences that name what they are about."""
    return tuple(Explained(code, _sentence(facts, code, context)) for code in judgement.reasons)


def of(code: KeepReason | CollectReason) -> str:
    """The reason as a sentence about any model."""
    return _KEPT_BECAUSE[code] if isinstance(code, KeepReason) else _COLLECTED_BECAUSE[code]


def _sentence(facts: Facts, code: KeepReason | CollectReason, context: Context) -> str:
    what: str | None
    match code:
        case KeepReason.BRANCH_EXISTS | KeepReason.FORMER_MAIN_BRANCH | KeepReason.BRANCH_RULE:
            what = facts.branch
        case KeepReason.COMMIT_ON_BRANCH:
            what = ", ".join(facts.holders[:_NAMED])
        case KeepReason.VERSION_RULE:
            what = facts.version
        case KeepReason.TOO_YOUNG:
            until = (facts.published_at + context.policy.minimum_age).isoformat(timespec="seconds")
            what = f"it stays until {until}"
        case CollectReason.RETIRED_BY_RULE if rule := context.rule_for(facts.version, facts.branch):
            what = f"{rule}, set by {rule.set_by}"
        case CollectReason.BRANCH_GONE:
            return f"Its branch {facts.branch} is gone, and it never reached staging or production."
        case _:
            return of(code)
    return f"{of(code).removesuffix('.')}: {what}."
