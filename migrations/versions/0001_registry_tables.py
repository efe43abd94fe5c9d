"""Create the tables of the registry."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "builds",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("sha", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("search_config", sa.Text(), nullable=False),
        sa.Column("base_search_config", sa.Text(), nullable=True),
        sa.Column("promote_to", sa.Text(), nullable=True),
        sa.Column("forced", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("failure_step", sa.Text(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('queued', 'running')) = (finished_at IS NULL)", name=op.f("ck_builds_finished")
        ),
        sa.CheckConstraint("prefix = version || '-' || left(sha, 7)", name=op.f("ck_builds_prefix")),
        sa.CheckConstraint(
            "promote_to IS NULL OR promote_to IN ('development', 'staging', 'production')",
            name=op.f("ck_builds_promote_to"),
        ),
        sa.CheckConstraint("sha ~ '^[0-9a-f]{7,40}$'", name=op.f("ck_builds_sha")),
        sa.CheckConstraint("state <> 'failed' OR failure_code IS NOT NULL", name=op.f("ck_builds_failure")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_builds_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_builds")),
    )
    op.create_index(
        "ix_builds_active",
        "builds",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_builds_created",
        "builds",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_builds_prefix_created",
        "builds",
        ["prefix", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "uq_builds_prefix_live",
        "builds",
        ["prefix"],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'running', 'succeeded')"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "next_attempt_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_due",
        "outbox",
        ["next_attempt_at", "id"],
        unique=False,
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_table(
        "build_inputs",
        sa.Column("build_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('code', 'config', 'raw_data', 'additional_source', 'benchmark_data', 'machine_image',"
            " 'transformer', 'python_environment')",
            name=op.f("ck_build_inputs_kind"),
        ),
        sa.CheckConstraint(
            "sha256 IS NULL OR sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_build_inputs_sha256")
        ),
        sa.CheckConstraint(
            "sha256 IS NOT NULL OR origin IS NOT NULL", name=op.f("ck_build_inputs_identified")
        ),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_build_inputs_build_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", "kind", "name", name=op.f("pk_build_inputs")),
    )
    op.create_index("ix_build_inputs_sha256", "build_inputs", ["sha256"], unique=False)
    op.create_table(
        "build_log_chunks",
        sa.Column("build_id", sa.Uuid(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column(
            "written_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_build_log_chunks_build_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", "start", name=op.f("pk_build_log_chunks")),
    )
    op.create_table(
        "build_steps",
        sa.Column("build_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("output", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'succeeded', 'failed', 'skipped')",
            name=op.f("ck_build_steps_state"),
        ),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_build_steps_build_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", "name", name=op.f("pk_build_steps")),
        sa.UniqueConstraint("build_id", "position", name=op.f("uq_build_steps_build_id_position")),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("sha", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("build_id", sa.Uuid(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("verdict_reason", sa.Text(), nullable=False),
        sa.Column(
            "published_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("verdict IN ('passed', 'failed')", name=op.f("ck_models_verdict")),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_models_build_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("build_id", name=op.f("uq_models_build_id")),
        sa.UniqueConstraint("id", "version", name=op.f("uq_models_id_version")),
        sa.UniqueConstraint("prefix", name=op.f("uq_models_prefix")),
    )
    op.create_index(
        "ix_models_branch_published",
        "models",
        ["branch", sa.literal_column("published_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_models_published",
        "models",
        [sa.literal_column("published_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_models_version_published",
        "models",
        ["version", sa.literal_column("published_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "artifacts",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_artifacts_sha256")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_artifacts_size_bytes")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_artifacts_model_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("model_id", "name", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("key", name=op.f("uq_artifacts_key")),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("promoted_by", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("override", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "promoted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "stage IN ('development', 'staging', 'production')", name=op.f("ck_promotions_stage")
        ),
        sa.ForeignKeyConstraint(
            ["model_id", "version"],
            ["models.id", "models.version"],
            name=op.f("fk_promotions_model_id_version"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_index("ix_promotions_model", "promotions", ["model_id", "stage"], unique=False)
    op.create_index(
        "ix_promotions_stage_latest", "promotions", ["stage", sa.literal_column("id DESC")], unique=False
    )
    op.create_index(
        "ix_promotions_stage_version_latest",
        "promotions",
        ["stage", "version", sa.literal_column("id DESC")],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index("ix_promotions_stage_version_latest", table_name="promotions")
    op.drop_index("ix_promotions_stage_latest", table_name="promotions")
    op.drop_index("ix_promotions_model", table_name="promotions")
    op.drop_table("promotions")
    op.drop_table("artifacts")
    op.drop_index("ix_models_version_published", table_name="models")
    op.drop_index("ix_models_published", table_name="models")
    op.drop_index("ix_models_branch_published", table_name="models")
    op.drop_table("models")
    op.drop_table("build_steps")
    op.drop_table("build_log_chunks")
    op.drop_index("ix_build_inputs_sha256", table_name="build_inputs")
    op.drop_table("build_inputs")
    op.drop_index("ix_outbox_due", table_name="outbox", postgresql_where=sa.text("done_at IS NULL"))
    op.drop_table("outbox")
    op.drop_index(
        "uq_builds_prefix_live",
        table_name="builds",
        postgresql_where=sa.text("state IN ('queued', 'running', 'succeeded')"),
    )
    op.drop_index("ix_builds_prefix_created", table_name="builds")
    op.drop_index("ix_builds_created", table_name="builds")
    op.drop_index(
        "ix_builds_active", table_name="builds", postgresql_where=sa.text("state IN ('queued', 'running')")
    )
    op.drop_table("builds")
