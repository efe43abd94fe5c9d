"""One build and its model, as the API shows them: the examples of the OpenAPI document."""

from hashlib import sha256
from typing import Any

from app.words import BuildKind, StepName

SHA = "aff1242c0ffee0ddba11c0de5eed5ca1ab1e0a7b"
PREFIX = "0.0.2-aff1242"
BUILD_ID = "6f1c2b7e-0d5a-4c39-9a51-3e0c9d1f7b42"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_SIZE = 48_210_334
_CONFIG = 'name = "tariff-model"\nversion = "0.0.2"\ndigits = 6\n'

BUILD_CREATE: dict[str, Any] = {
    "sha": SHA,
    "branch": "feature/more-data",
    "search_config": _CONFIG,
    "base_search_config": _CONFIG.replace("0.0.2", "0.0.1"),
    "promote_to": "development",
}

_OUTPUTS: dict[StepName, dict[str, Any]] = {
    StepName.NEEDS_MODEL: {"reason": "the version has risen"},
    StepName.FIND_IMAGE: {"image_id": "ami-0a1b2c3d4e5f60718", "name": "FPO Training 1.1.0"},
    StepName.FIND_NETWORK: {"zone": "eu-west-2a"},
}


def _step(name: StepName) -> dict[str, Any]:
    done = name in _OUTPUTS
    running = name is StepName.LAUNCH_INSTANCE
    return {
        "name": name.value,
        "state": "succeeded" if done else "running" if running else "pending",
        "attempts": int(done or running),
        "started_at": "2026-11-23T09:00:02.104532Z" if done or running else None,
        "finished_at": "2026-11-23T09:00:02.391120Z" if done else None,
        "output": _OUTPUTS.get(name),
        "message": "InsufficientInstanceCapacity in eu-west-2a; trying again in 10 s" if running else None,
        "taken_over_from": None,
    }


BUILD: dict[str, Any] = {
    "id": BUILD_ID,
    "prefix": PREFIX,
    "version": "0.0.2",
    "sha": SHA,
    "branch": "feature/more-data",
    "kind": "train",
    "state": "running",
    "promote_to": "development",
    "requested_by": "ci",
    "requested_by_kind": "token",
    "created_at": "2026-11-23T09:00:01.733812Z",
    "started_at": "2026-11-23T09:00:01.902144Z",
    "finished_at": None,
    "steps": [_step(name) for name in BuildKind.TRAIN.steps],
    "progress": None,
    "launches": [],
    "instance": None,
    "failure": None,
    "cancel_requested_at": None,
    "cancel_requested_by": None,
    "reproduction": None,
    "retry_of": None,
    "retry_with": None,
}

NOT_NEEDED: dict[str, Any] = {
    "outcome": "not_needed",
    "prefix": PREFIX,
    "build": None,
    "reason": "version_unchanged",
    "base_problem": None,
    "changed_keys": ["learning_rate"],
    "other_models_of_this_version": ["0.0.2-0b5e7c1"],
    "warnings": [],
}
QUEUED: dict[str, Any] = {
    "outcome": "queued",
    "prefix": PREFIX,
    "build": BUILD
    | {
        "state": "queued",
        "started_at": None,
        "steps": [
            {
                "name": name.value,
                "state": "pending",
                "attempts": 0,
                "started_at": None,
                "finished_at": None,
                "output": None,
                "message": None,
                "taken_over_from": None,
            }
            for name in BuildKind.TRAIN.steps
        ],
    },
    "reason": None,
    "base_problem": None,
    "changed_keys": [],
    "other_models_of_this_version": [],
    "warnings": [],
}

NEEDED: dict[str, Any] = QUEUED | {"outcome": "needed", "build": None}

METRICS = {"everyday": {"count": 200, "top_1": 0.62, "top_5": 0.83, "no_result": 0.05, "measurement": 1}}

AUDIT_ENTRY: dict[str, Any] = {
    "id": 41,
    "at": "2026-11-23T10:12:44.118305Z",
    "who": "deploy",
    "kind": "token",
    "action": "promoted",
    "subject": PREFIX,
    "request_id": "5f0c9f0e4b6d4a3f9d53b0e1c7a8e2d4",
    "before": {"stage": "staging", "prefix": None},
    "after": {"stage": "staging", "prefix": PREFIX, "override": False, "note": "release 2026-11"},
}

PROMOTION: dict[str, Any] = {
    "id": 41,
    "prefix": PREFIX,
    "stage": "development",
    "promoted_at": "2026-11-23T10:12:44.018233Z",
    "promoted_by": "deploy",
    "promoted_by_kind": "token",
    "note": None,
    "override": False,
    "rollback": False,
}
PERIOD: dict[str, Any] = PROMOTION | {"until": None}
STAGES: dict[str, Any] = {
    "items": [
        {
            "stage": "development",
            "current": {
                "prefix": PREFIX,
                "version": "0.0.2",
                "verdict": "passed",
                "missing_artifacts": [],
                "promotion": PROMOTION,
            },
        },
        {"stage": "staging", "current": None},
        {"stage": "production", "current": None},
    ]
}
ROLLBACK_CREATE: dict[str, Any] = {"expected": PREFIX, "note": "it takes knives for spoons"}

_PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEiHMkzX+7VR0VGd5f1dYhMsDHtUdz
zejsGVoP2ImAN16JSzD4S9KdkfOhWET3ocB3tkIsqQSMAhxOq9n4k/tRJw==
-----END PUBLIC KEY-----
"""
_FINGERPRINT = sha256(_PUBLIC_KEY.encode()).hexdigest()
SIGNING_KEY: dict[str, Any] = {
    "fingerprint": _FINGERPRINT,
    "public_key": _PUBLIC_KEY,
    "first_used_at": "2026-11-20T08:12:44.104532Z",
}

PROVENANCE: dict[str, Any] = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "model.zip", "digest": {"sha256": DIGEST}}],
    "predicateType": "https://slsa.dev/provenance/v1",
    "predicate": {
        "buildDefinition": {
            "buildType": "urn:tariff-model-registry:build:v1",
            "externalParameters": {"prefix": PREFIX, "sha": SHA, "branch": "feature/more-data"},
            "resolvedDependencies": [
                {
                    "name": "raw_source_data.zip",
                    "annotations": {"kind": "raw_data"},
                    "uri": f"s3://tariff-models/inputs/sha256/{DIGEST}",
                    "digest": {"sha256": DIGEST},
                }
            ],
        },
        "runDetails": {
            "builder": {"id": "urn:tariff-model-registry:worker"},
            "metadata": {
                "invocationId": BUILD_ID,
                "startedOn": "2026-11-23T09:00:01.902144Z",
                "finishedOn": "2026-11-23T10:00:41.120031Z",
            },
        },
    },
}

# Shortened.
SIGNATURE_BUNDLE: dict[str, Any] = {
    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "verificationMaterial": {"publicKey": {"hint": DIGEST}},
    "dsseEnvelope": {
        "payload": "eyJfdHlwZSI6ICJodHRwczovL2luLXRvdG8uaW8vU3RhdGVtZW50L3YxIn0=",
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": "MEUCIQDd3mVwXx7tvhJ0n0o0h1mQ8vK2o6Zr0b9cU5e5l7lq3gIgQm1n"}],
    },
}

PIN_CREATE: dict[str, Any] = {"note": "the comparison for the annual report"}
RELEASE_CREATE: dict[str, Any] = {"reason": "0.0.3 replaced it in March, and the audit of that year is over"}

MODEL: dict[str, Any] = {
    "prefix": PREFIX,
    "version": "0.0.2",
    "sha": SHA,
    "branch": "feature/more-data",
    "origin": "built",
    "build": BUILD_ID,
    "published_at": "2026-11-23T10:01:09.550021Z",
    "metrics": METRICS,
    "verdict": "passed",
    "verdict_reason": "no figure got too much worse, of 1 compared with 0.0.1-11ce0f5 in production",
    "signature": {"key": _FINGERPRINT, "signed_at": "2026-11-23T10:01:09.551310Z"},
    "state": "kept",
    "mark": None,
    "collected_at": None,
    "pin": {
        "at": "2026-11-24T08:12:40.116205Z",
        "by": "anna",
        "by_kind": "token",
        "note": "the comparison for the annual report",
    },
    "release": None,
    "last_reproduction": {
        "build": "0d5b7c1e-6f0a-4b7e-9a41-5c2f8e3d1b90",
        "verdict": "identical",
        "at": "2026-11-25T14:20:31.220418Z",
    },
    "stages": ["development"],
    "artifacts": [
        {
            "name": "model.zip",
            "sha256": DIGEST,
            "size": _SIZE,
            "content_type": "application/zip",
            "missing_since": None,
        },
    ],
    "promotions": [PROMOTION],
}

ONE_MODEL: dict[str, Any] = MODEL | {
    "warnings": [
        "source tradesets: only 3,120 of 48,210 rows can be used (no source creates this code: 45,090). See "
        "the cleaning report, or lower minimum_usable_share if this is right."
    ]
}

_TROUSERS: dict[str, Any] = {"description": "mens cotton trousers", "codes": ["620342"]}

LINEAGE: dict[str, Any] = {
    "prefix": PREFIX,
    "nodes": [
        {
            "id": f"model:{PREFIX}",
            "type": "model",
            "name": PREFIX,
            "at": "2026-11-23T10:12:44.810233Z",
            "kind": None,
            "sha256": None,
            "size": None,
            "origin": None,
            "details": {"origin": "built", "verdict": "passed", "sha": SHA, "branch": "feature/more-data"},
        },
        {
            "id": f"build:{BUILD_ID}",
            "type": "build",
            "name": PREFIX,
            "at": "2026-11-23T09:00:01.733812Z",
            "kind": None,
            "sha256": None,
            "size": None,
            "origin": None,
            "details": {
                "state": "succeeded",
                "sha": SHA,
                "branch": "feature/more-data",
                "forced": False,
                "requested_by": "ci",
            },
        },
        {
            "id": "input:raw_data:raw_source_data.zip",
            "type": "input",
            "name": "raw_source_data.zip",
            "at": "2026-11-20T08:30:12.004113Z",
            "kind": "raw_data",
            "sha256": DIGEST,
            "size": _SIZE,
            "origin": f"s3://tariff-models/inputs/sha256/{DIGEST}",
            "details": {
                "fetched_from": "s3://tariff-models/raw_source_data.zip",
                "fetched_at": "2026-11-23T09:04:40.120034+00:00",
                "etag": "9b2cf535f27731c974343645a3985328-6",
                "stored": True,
            },
        },
    ],
    "edges": [
        {"source": f"build:{BUILD_ID}", "target": f"model:{PREFIX}", "type": "made"},
        {
            "source": "input:raw_data:raw_source_data.zip",
            "target": f"build:{BUILD_ID}",
            "type": "used_by",
        },
    ],
    "outputs": {
        "files": [
            {
                "name": "model.zip",
                "sha256": DIGEST,
                "size": _SIZE,
                "contents": [{"path": "target/model.pt", "sha256": DIGEST[::-1], "size": _SIZE - 4096}],
            }
        ],
        "epochs": [{"epoch": 1, "loss": 2.104112, "accuracy": 0.512203}],
        "timings": [
            {"step": "train", "phase": None, "seconds": 3391.204},
            {"step": "train", "phase": "embed", "seconds": 412.91},
        ],
        "data": {"train": {"cn": {"rows": 11_290, "usable": 11_203, "broken": 0}}},
        "warnings": [],
    },
    "not_known": [],
}
INPUT_USERS: dict[str, Any] = {
    "collected_at": None,
    "running": [{"stage": "production", "prefix": PREFIX, "since": "2026-11-23T11:02:10.550121Z"}],
    "not_known": [],
    "items": [
        {
            "prefix": PREFIX,
            "version": "0.0.2",
            "sha": SHA,
            "branch": "feature/more-data",
            "verdict": "passed",
            "published_at": "2026-11-23T10:12:44.810233Z",
            "runs_in": ["production"],
            "uses": [
                {
                    "kind": "raw_data",
                    "name": "raw_source_data.zip",
                    "sha256": DIGEST,
                    "path": "tradesets/2024.csv",
                    "lines": 48_211,
                }
            ],
        }
    ],
    "next": None,
}
BENCHMARKS: dict[str, Any] = {
    "prefix": PREFIX,
    "benchmarks": [
        {
            "name": "everyday",
            "measurement": 2,
            "figures": {"count": 200, "top_1": 0.62, "top_5": 0.83, "no_result": 0.05},
            "chapters": [{"chapter": "62", "count": 14, "top_1": 0.5, "top_5": 0.857143, "no_result": 0.0}],
            "wrong": 76,
            "worst": [
                _TROUSERS | {"place": None, "predictions": [{"code": "620343", "score": 0.912}]},
            ],
        }
    ],
    "problem": None,
}

COMPARISON: dict[str, Any] = {
    "prefix": PREFIX,
    "other": "0.0.1-11ce0f5",
    "benchmarks": [
        {
            "benchmark": "everyday",
            "other_benchmark": "everyday",
            "comparable": True,
            "figures": [{"figure": "top_1", "this": 0.62, "other": 0.585, "difference": 0.035}],
            "compared": 200,
            "better": {
                "total": 1,
                "first": [
                    _TROUSERS
                    | {
                        "place": 1,
                        "other_place": 3,
                        "first": {"code": "620342", "score": 0.853},
                        "other_first": {"code": "620343", "score": 0.412},
                    }
                ],
            },
            "worse": {"total": 0, "first": []},
        }
    ],
    "problems": [],
    "made_from": {
        "commit": SHA,
        "other_commit": "11ce0f5d0a7e4b1f9c3d6e8a2b5c7f0d1e4a6b90",
        "config": [{"key": "learning_rate", "this": "0.0005", "other": "0.001"}],
        "inputs": [
            {"kind": "raw_data", "name": "raw_source_data.zip", "this": DIGEST, "other": DIGEST[::-1]}
        ],
        "files": [
            {
                "archive": "raw_source_data.zip",
                "path": "tradesets/2024.csv",
                "change": "changed",
                "lines": 48_211,
                "other_lines": 48_190,
            }
        ],
        "files_total": 1,
        "packages": [{"name": "torch", "change": "changed", "version": "2.9.1", "other_version": "2.9.0"}],
        "packages_total": 1,
        "facts": [{"kind": "determinism", "fact": "seed", "this": 1, "other": 0}],
        "not_known": [],
    },
}

LATEST: dict[str, Any] = {
    "prefix": PREFIX,
    "version": "0.0.2",
    "sha": SHA,
    "verdict": "passed",
    "promoted_at": PROMOTION["promoted_at"],
    "promoted_by": "deploy",
    "artifacts": {
        "model.zip": {
            "url": f"https://tariff-models.s3.eu-west-2.amazonaws.com/{PREFIX}/model.zip?X-Amz-Algorithm="
            "AWS4-HMAC-SHA256&X-Amz-Expires=3600&X-Amz-Signature=…",
            "sha256": DIGEST,
            "size": _SIZE,
        },
    },
}

VERDICT_CREATE: dict[str, Any] = {
    "verdict": "passed",
    "reason": "the lost descriptions are in a chapter that nobody declares any more",
}
_LIMITS = {"high": 2.0, "medium": None, "low": None}
VALIDATION: dict[str, Any] = {
    "prefix": PREFIX,
    "verdict": "passed",
    "verdict_reason": "no figure got too much worse, of 1 compared with 0.0.1-11ce0f5 in production",
    "changed": None,
    "report": {
        "prefix": PREFIX,
        "verdict": "passed",
        "reason": "no figure got too much worse, of 1 compared with 0.0.1-11ce0f5 in production",
        "baseline": {"prefix": "0.0.1-11ce0f5", "why": "production"},
        "comparisons": [
            {
                "threshold": "Right answers",
                "benchmark": "everyday",
                "metric": "top_1",
                "direction": "increase_is_good",
                "old": 0.61,
                "new": 0.62,
                "difference": 1.0,
                "limits": _LIMITS,
                "breach": None,
            }
        ],
        "data": [
            {
                "what": "rows",
                "old": 20110,
                "new": 20240,
                "fewer": -0.646445,
                "limits": {"high": 50.0, "medium": 20.0, "low": 5.0},
                "breach": None,
            }
        ],
        "failures": [],
        "warnings": [],
        "mentioned": [],
        "descriptions": [
            {
                "benchmark": "everyday",
                "compared": 200,
                "entered_first": {
                    "count": 2,
                    "first": [
                        {
                            "description": "mens cotton trousers",
                            "code": "620342",
                            "old_place": 2,
                            "new_place": 1,
                        }
                    ],
                },
                "left_first": {"count": 0, "first": []},
                "entered_first_five": {"count": 0, "first": []},
                "left_first_five": {"count": 0, "first": []},
            }
        ],
        "descriptions_problem": None,
    },
}

READY: dict[str, Any] = {
    "ready": True,
    "database": "ok",
    "migrations": "ok",
    "bucket": "ok",
    "access": "reads: reading is open, and writing needs a token",
}
NOT_READY = READY | {
    "ready": False,
    "migrations": "the schema is at 0003, the code at 0004: run `tariff-registry migrate`",
}

LOG = "2026-11-23T09:00:02Z [find_image] done\n2026-11-23T09:00:02Z [find_network] done\n"

TOKEN_CREATE: dict[str, Any] = {
    "name": "deploy",
    "scopes": ["read", "promote:staging"],
    "expires_in_days": 90,
}
TOKEN: dict[str, Any] = {
    "id": "b7d0e0e2-5f0c-4a4e-8f0e-2a86d5a2f1c3",
    "name": "deploy",
    "kind": "token",
    "state": "active",
    "starts_with": "tmr_1aG7bQ",
    "scopes": ["read", "promote:staging"],
    "created_at": "2026-11-23T08:00:12.104532Z",
    "created_by": "root",
    "created_by_kind": "token",
    "expires_at": "2027-02-21T08:00:12.104532Z",
    "last_used_at": "2026-11-23T10:12:44.018233Z",
    "revoked_at": None,
    "revoked_by": None,
    "revoked_by_kind": None,
}
TOKEN_CREATED: dict[str, Any] = TOKEN | {"last_used_at": None, "token": "tmr_1aG7bQ…"}

IMAGE: dict[str, Any] = {
    "region": "eu-west-2",
    "image_id": "ami-0a1b2c3d4e5f60718",
    "name": "FPO Training 1.1.0",
    "version": "1.1.0",
    "state": "available",
    "architecture": "x86_64",
    "created_at": "2026-11-02T14:20:05Z",
    "base_image": "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20261028",
    "models": 41,
    "in_use": False,
}
IMAGES: dict[str, Any] = {
    "items": [IMAGE],
    "regions": [{"region": "eu-west-2", "listed_at": "2026-11-23T09:00:01Z", "problem": None}],
    "next": None,
}

GITHUB_SIGN_IN: dict[str, Any] = {"token": "eyJhbGciOiJSUzI1NiIsImtpZCI6…"}
SIGNED_IN: dict[str, Any] = {
    "token": "tmr_9xKe2P…",
    "name": "customs/tariff-models:model.yml:9182736455.1",
    "scopes": ["read", "build"],
    "expires_at": "2026-11-23T09:15:00Z",
}
PUBLISHER_CREATE: dict[str, Any] = {
    "name": "models of pull requests",
    "repository_id": 728_113_940,
    "repository_owner_id": 9_919,
    "workflow": "model.yml",
    "ref": "refs/pull/*/merge",
    "scopes": ["read", "build"],
}
PUBLISHER: dict[str, Any] = PUBLISHER_CREATE | {
    "id": "0e2f8f5e-6f0a-4f5e-8a43-2d4b8a1c9d10",
    "environment": None,
    "created_at": "2026-11-23T08:40:11.027311Z",
    "created_by": "root",
    "created_by_kind": "token",
}

RUN_ID = "0d9b6a52-7a0e-4b5c-9f55-0b8f0c6f6c11"

RUN: dict[str, Any] = {
    "id": RUN_ID,
    "kind": "reconciliation",
    "state": "succeeded",
    "options": {"apply": True, "model_zip": False},
    "requested_by": "operator",
    "requested_by_kind": "token",
    "created_at": "2026-11-24T08:15:30.104532Z",
    "started_at": "2026-11-24T08:15:30.131870Z",
    "finished_at": "2026-11-24T08:15:31.420018Z",
    "stopped_by": None,
    "progress": {"prefixes": 12, "models": 12, "of_models": 12},
    "result": {
        "prefixes": 12,
        "objects": 84,
        "models": 12,
        "waiting": 0,
        "repaired": 1,
        "differences": {"marker_missing": 1},
        "findings": [
            {
                "difference": "marker_missing",
                "key": f"{PREFIX}/staging",
                "detail": "The registry has recorded this, and there is no marker.",
                "repaired": True,
            }
        ],
    },
    "waits_for": None,
    "failure": None,
}

SIGNING: dict[str, Any] = {
    "prefix": PREFIX,
    "signature": None,
    "run": RUN
    | {
        "kind": "signing",
        "state": "queued",
        "options": {"prefix": PREFIX},
        "started_at": None,
        "finished_at": None,
        "progress": None,
        "result": None,
    },
}

NOTIFICATION_TEST: dict[str, Any] = {"message": "5d2f9f0c-2c52-4c4f-9d1b-7e0b3f1f7a6e"}
NOTIFICATION: dict[str, Any] = {
    "id": 311,
    "message": NOTIFICATION_TEST["message"],
    "target": "webhook",
    "kind": "stage.promoted",
    "subject": "staging",
    "data": {
        "stage": "staging",
        "prefix": PREFIX,
        "replaces": "0.0.1-11ce0f5",
        "promoted_at": "2026-11-24T08:15:30.104532Z",
        "by": "deploy",
        "note": "release 42",
        "override": False,
    },
    "created_at": "2026-11-24T08:15:30.104701Z",
    "state": "pending",
    "attempts": 2,
    "next_attempt_at": "2026-11-24T08:15:46.501844Z",
    "finished_at": None,
    "error": "The target answered 503: no upstream",
}

RELEASE_RULE_CREATE: dict[str, Any] = {
    "versions": "0.0.*",
    "reason": "1.0 has replaced them all, and the audit of that year is over",
}
RELEASE_RULE: dict[str, Any] = RELEASE_RULE_CREATE | {
    "id": "5b0f3c1e-91d4-4f0e-8a53-0f1f4a3b7c52",
    "branches": None,
    "state": "active",
    "models": 14,
    "created_at": "2026-11-24T08:14:02.301877Z",
    "created_by": "anna",
    "created_by_kind": "token",
    "revoked_at": None,
    "revoked_by": None,
    "revoked_by_kind": None,
}

PLAN: dict[str, Any] = {
    "digest": "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c",
    "computed_at": "2026-11-24T08:15:30.104532Z",
    "branches": {
        "current": True,
        "fetched_at": "2026-11-24T08:15:02.731870Z",
        "remote": "https://git.example.org/team/classifier.git",
        "main_branch": "main",
        "problem": None,
    },
    "doomed": {"prefixes": 1, "objects": 10, "size": 48_243_118},
    "kept": {"prefixes": 1, "objects": 12, "size": 48_251_902},
    "reasons": {"branch_gone": 1, "branch_exists": 1, "newest_passed": 1},
    "items": [
        {
            "prefix": PREFIX,
            "verdict": "kept",
            "reasons": [
                {"code": "branch_exists", "text": "Its branch exists: feature/cn-2027."},
                {
                    "code": "newest_passed",
                    "text": "It is among the newest models that passed their validation.",
                },
            ],
            "state": "kept",
            "branch": "feature/cn-2027",
            "published_at": "2026-11-20T14:02:11.482113Z",
            "objects": 12,
            "size": 48_251_902,
        },
        {
            "prefix": "0.0.1-11ce0f5",
            "verdict": "doomed",
            "reasons": [
                {
                    "code": "branch_gone",
                    "text": "Its branch feature/units is gone, and it never reached staging or production.",
                }
            ],
            "state": "kept",
            "branch": "feature/units",
            "published_at": "2026-10-02T09:41:56.003217Z",
            "objects": 10,
            "size": 48_243_118,
        },
    ],
    "next": None,
}
MIRROR: dict[str, Any] = {
    "waiting": 1,
    "since": "2026-11-24T08:15:30.104532Z",
    "first": [
        {
            "key": f"{PREFIX}/staging",
            "asked_at": "2026-11-24T08:15:30.104532Z",
            "attempts": 3,
            "next_attempt_at": "2026-11-24T08:15:38.220911Z",
            "error": "CloudUnavailable: ServiceUnavailable: Please reduce your request rate.",
        }
    ],
}

EVENTS = (
    "retry: 2000\n\n"
    'event: step_started\ndata: {"at": "2026-11-23T09:00:02.10+00:00", "step": "find_image", "attempt": 1}\n'
    "id: 57:43\n\n"
    'event: log\ndata: {"at": "2026-11-23T09:00:02.30+00:00", "text": "[find_image] done\\n"}\nid: 57:61\n\n'
)
