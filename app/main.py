"""The FastAPI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from app.api import (
    audit,
    builds,
    collection,
    health,
    images,
    inputs,
    models,
    notifications,
    publishers,
    runs,
    stages,
    tokens,
)
from app.api.builds.following import Following
from app.api.common import errors
from app.api.common.admission import Admission
from app.api.common.edge import Edge
from app.api.common.strict import PublicRoute
from app.api.probe import BucketProbe
from app.api.problem_pages import router as problem_pages
from app.api.stages.kept import KeptAnswers
from app.db.session import Database
from app.identity import Issuer
from app.registry.access.callers import AccessPolicy
from app.registry.collection.kept_plan import KeptPlan
from app.registry.models.kept_results import KeptResults
from app.registry.models.thresholds import default_thresholds
from app.settings import Settings
from app.storage.bucket import Bucket

DESCRIPTION = """
The registry records which models were built from which commits, and which model runs in which stage.

* **CI** requests a model with `POST /builds` and follows its build with `GET /builds/{id}`.
* **The deploy job** asks `GET /models/{stage}/latest` what to deploy, and records the deployment with
  `POST /models/{prefix}/promotions`.

Errors are `application/problem+json` with a stable `type`. Times are UTC.
Lists come in pages: to get the next page, pass `next` as `cursor`.
"""

TAGS = [
    {"name": "builds", "description": "Attempts to produce the model of a prefix."},
    {"name": "models", "description": "The models that builds published, and what to deploy."},
    {"name": "inputs", "description": "What models were made from, and which models an input went into."},
    {"name": "images", "description": "The machine images that builds are trained on."},
    {"name": "stages", "description": "What runs where, what ran there before, promotions and rollbacks."},
    {"name": "gc", "description": "Garbage collection: which models may be deleted, and which are kept."},
    {
        "name": "runs",
        "description": "Imports, reconciliations and collections: long pieces of work that can be "
        "followed and stopped.",
    },
    {
        "name": "tokens",
        "description": "Who may call: tokens with scopes, for people and programs, and CI workflows that "
        "sign in without a secret.",
    },
    {"name": "audit", "description": "Who changed what, and when."},
    {"name": "notifications", "description": "What other systems are told: a webhook, and Slack."},
    {"name": "health", "description": "For load balancers and monitors."},
]

# Half of FastAPI's threads, so that whoever has a transaction always finds a thread.
_TRANSACTIONS = 20


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API for one database and one bucket. Settings that are not given are read from the environment.

    Raises SettingsError if the file of thresholds that they name cannot be used.
    """
    settings = settings or Settings()
    # With its overflow, the pool has a connection for each of FastAPI's threads for blocking endpoints.
    database = Database(settings.database_url.get_secret_value(), pool_size=_TRANSACTIONS)

    bucket = Bucket.of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Start asking the bucket now, so that the first request for /readyz finds an answer.
        app.state.bucket_probe.status()
        yield
        await app.state.following.close()
        await app.state.kept.close()
        await app.state.admission.close()
        database.close()

    # The pages contain their own scripts, because no CDN can be reached behind a customs firewall.
    app = FastAPIOffline(
        title="Tariff model registry",
        description=DESCRIPTION,
        version=version("tariff-model-registry"),
        openapi_tags=TAGS,
        lifespan=lifespan,
        separate_input_output_schemas=False,
        # A redirect would go to a URL made from the Host header, which is plain HTTP behind a TLS proxy.
        redirect_slashes=False,
    )
    app.add_middleware(Edge)
    app.router.route_class = PublicRoute
    app.state.settings = settings
    app.state.database = database
    app.state.turns = asyncio.Semaphore(_TRANSACTIONS)
    app.state.admission = Admission(AccessPolicy(settings.access, settings.api_tokens), database)
    app.state.issuer = (
        None if settings.github_audience is None else Issuer(settings.github_issuer, settings.github_audience)
    )
    app.state.bucket = bucket
    app.state.default_thresholds = default_thresholds(settings)
    app.state.kept = KeptAnswers(database, settings.latest_max_age)
    app.state.kept_results = KeptResults(bucket)
    app.state.kept_plan = KeptPlan()
    app.state.following = Following(database)
    app.state.bucket_probe = BucketProbe(bucket.check)
    errors.install(app)

    @app.get("/", include_in_schema=False)
    def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    app.include_router(problem_pages)
    for router in (
        *builds.ROUTERS,
        *models.ROUTERS,
        *stages.ROUTERS,
        inputs.router,
        images.router,
        *collection.ROUTERS,
        runs.router,
        tokens.router,
        *publishers.ROUTERS,
        audit.router,
        notifications.router,
        health.router,
    ):
        app.include_router(router)
    return app
