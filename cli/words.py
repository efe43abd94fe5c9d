"""The registry's words that the command line takes as arguments."""

from enum import StrEnum


class Stage(StrEnum):
    """Where a model may run, in the order of promotion. The same as the API's; a test compares them."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class Scope(StrEnum):
    """What a token may do. The same as the API's; a test compares them."""

    READ = "read"
    BUILD = "build"
    PROMOTE_DEVELOPMENT = "promote:development"
    PROMOTE_STAGING = "promote:staging"
    PROMOTE_PRODUCTION = "promote:production"
    OVERRIDE = "override"
    COLLECT = "collect"
    ADMIN = "admin"
