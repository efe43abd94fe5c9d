"""An example of each type of problem for the OpenAPI document and the pages of the problems."""

from typing import Any

from app.api.common.examples import BUILD_ID, DIGEST, PREFIX, RUN_ID, SHA

_NOT_KEPT = {"prefix": PREFIX, "since": "2026-11-19T02:00:00Z", "reason": "branch_gone"}

# An example of each type of problem: its detail, and its facts.
PROBLEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "not-found": (
        f"There is no model {PREFIX}. GET /models lists the models; "
        f"GET /builds?prefix={PREFIX} lists the builds of this prefix.",
        {},
    ),
    "nothing-promoted": (
        "No model was ever promoted to production. Promote one with POST /models/{prefix}/promotions.",
        {},
    ),
    "conflict": (f"The builds of {PREFIX} keep starting and ending. Send the request again.", {}),
    "prefix-collision": (
        f"{PREFIX} is the commit {SHA}. Yours, aff1242{'0b' * 16}b, shares its version and first 7 digits. "
        "Raise the version in search-config.toml.",
        {"prefix": PREFIX, "build": BUILD_ID},
    ),
    "config-differs": (
        f"{PREFIX} has a build with other values of digits. Raise the version in search-config.toml, "
        "or send the configuration that it was built with.",
        {
            "prefix": PREFIX,
            "build": BUILD_ID,
            "keys": ["digits"],
            "differences": [{"key": "digits", "there": "6", "sent": "8"}],
        },
    ),
    "build-ended": (
        f"Build {BUILD_ID} has succeeded already, so it cannot be cancelled. Nothing was changed.",
        {"build": BUILD_ID, "state": "succeeded"},
    ),
    "retry-refused": (
        f"Build {BUILD_ID} of {PREFIX} cannot be retried: it is running. Wait for its end, or cancel it "
        "first.",
        {"build": BUILD_ID, "prefix": PREFIX, "reason": "active"},
    ),
    "not-reproducible": (
        f"{PREFIX} cannot be made again exactly, because not everything that it was made from is still "
        f"there: raw_data raw_source_data.zip: the bucket has no inputs/sha256/{DIGEST} any more. To use "
        "what is there now in its place, send accept with raw_data.",
        {
            "prefix": PREFIX,
            "reason": "not_pinned",
            "not_pinned": [
                {
                    "what": "raw_data",
                    "name": "raw_source_data.zip",
                    "reason": f"the bucket has no inputs/sha256/{DIGEST} any more",
                }
            ],
        },
    ),
    "gate-refused": (
        f"{PREFIX} was never in staging, and production takes only models that were. "
        "Promote it to staging first, or send override with a note that says why.",
        {"gate": "stage_order", "required_stage": "staging"},
    ),
    "run-active": (
        f"Another import is under way, and there is one at a time. Follow it with GET /runs/{RUN_ID}, "
        f"or stop it with POST /runs/{RUN_ID}/stop.",
        {"run": RUN_ID},
    ),
    "stage-changed": (
        f"production runs 0.0.1-11ce0f5, and the request expects {PREFIX}. If an earlier try of the same "
        "request has done this, nothing is left to do. Otherwise look at GET /stages and decide again.",
        {"expected": PREFIX, "running": "0.0.1-11ce0f5"},
    ),
    "nothing-to-roll-back-to": (
        f"No other model ran in production before {PREFIX}. Promote another model with "
        "POST /models/{prefix}/promotions.",
        {},
    ),
    "model-marked": (
        f"{PREFIX} is marked for garbage collection: no branch has its commit (marked at "
        f"2026-11-19T02:00:00Z). POST /models/{PREFIX}/restore keeps it, until its files are deleted.",
        _NOT_KEPT | {"state": "marked"},
    ),
    "model-collected": (
        f"{PREFIX} was collected: no branch has its commit (marked at 2026-11-19T02:00:00Z). Its files are "
        "deleted and cannot be restored. Its record, lineage and provenance stay: "
        f"GET /models/{PREFIX}.",
        _NOT_KEPT | {"state": "collected"},
    ),
    "prefix-collected": (
        f"The model {PREFIX} was collected, and a prefix is never used again. Raise the version in "
        "search-config.toml.",
        {"prefix": PREFIX},
    ),
    "collection-off": (
        "REGISTRY_GC is `off`, so garbage collection deletes nothing. Set it to `plan` or `on`.",
        {},
    ),
    "plan-changed": (
        f"The plan has the digest {DIGEST} now, because other models may go than before. Look at the "
        "result of a new dry run, and send its digest.",
        {"digest": DIGEST},
    ),
    "collection-too-large": (
        "This run would mark or delete 240 of 610 models, and at most 122 are allowed. Look at the result of "
        "a dry run. If it is right, send `allow_large` with its `plan_digest`.",
        {"models": 240, "of": 610, "most": 122},
    ),
    "not-a-stray": (
        f"{PREFIX} is not deleted: the registry knows its model, which GET /models/{PREFIX} shows. "
        "Leave it out of `delete_strays`.",
        {"prefix": PREFIX},
    ),
    "artifacts-missing": (
        f"The bucket lacks files of {PREFIX}: model.zip. Restore them and have POST /mirror/reconcile look "
        "at them, or roll the stage back.",
        {"prefix": PREFIX, "artifacts": ["model.zip"]},
    ),
    "bucket-unavailable": (
        f"S3 cannot say whether the files of {PREFIX} are there: ServiceUnavailable: Please reduce your "
        "request rate. Send the request again, or send override with a note that says why.",
        {},
    ),
    "token-name-taken": (
        "There is an active token with the name 'deploy'. Choose another name, or revoke that token first.",
        {"name": "deploy"},
    ),
    "invalid-request": (
        "query.limit: Input should be less than or equal to 200",
        {"problems": [{"where": "query.limit", "message": "Input should be less than or equal to 200"}]},
    ),
    "invalid-search-config": (
        "search_config cannot be used: line 3: digits: must be one of 6 or 8; it is 7",
        {
            "field": "search_config",
            "problems": [{"key": "digits", "line": 3, "message": "must be one of 6 or 8; it is 7"}],
        },
    ),
    "invalid-thresholds": (
        "thresholds cannot be used: line 6: thresholds[0].direction: is 'up', but must be one of "
        "'increase_is_good' or 'increase_is_bad'",
        {
            "problems": [
                {
                    "key": "thresholds[0].direction",
                    "line": 6,
                    "message": "is 'up', but must be one of 'increase_is_good' or 'increase_is_bad'",
                }
            ],
        },
    ),
    "unauthorized": (
        "Send `Authorization: Bearer <token>` with a token that this registry knows: one that an "
        "administrator has created with POST /tokens, or one of REGISTRY_API_TOKENS.",
        {},
    ),
    "identity-refused": (
        "The identity token is not accepted: it is not meant for this registry alone: its aud must be "
        "'https://registry.example.org'.",
        {},
    ),
    "identity-unavailable": (
        "Nobody can sign in at the moment, because https://token.actions.githubusercontent.com/.well-known/"
        "openid-configuration cannot be fetched: timed out. Send the request again.",
        {},
    ),
    "sign-in-off": (
        "No workflow can sign in here: the operator has not set REGISTRY_GITHUB_AUDIENCE.",
        {},
    ),
    "forbidden": (
        "The token 'ci' lacks the scope promote:production. Use a token that has it. An administrator "
        "creates one with POST /tokens, or adds the scope to the token's entry in REGISTRY_API_TOKENS.",
        {"required_scope": "promote:production"},
    ),
    "cloud-error": (
        "NoCredentialsError: Unable to locate credentials. Give the process an IAM role or AWS_* variables.",
        {},
    ),
    "database-unavailable": (
        "The database did not answer. Send the request again; repeating it does no harm.",
        {},
    ),
    "bad-request": ("Invalid HTTP request received. Send HTTP/1.1.", {}),
    "path-not-found": ("The API has no path /model. GET /docs lists what it has.", {}),
    "method-not-allowed": ("/builds takes only GET, HEAD, POST. See GET /docs.", {}),
    "request-timeout": ("The body did not arrive in time. Send the request again.", {}),
    "body-too-large": ("The body is larger than 4,194,304 bytes. Send less.", {}),
    "unsupported-media-type": (
        "The body came with the content type 'application/x-www-form-urlencoded'. Send JSON, with the header "
        "`Content-Type: application/json`.",
        {},
    ),
    "headers-too-large": ("The headers and the URL together are larger than 32,768 bytes. Send less.", {}),
    "internal-error": (
        "This is a defect of the registry; its log has the details. Nothing was changed.",
        {},
    ),
}
