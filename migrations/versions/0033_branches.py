"""Record what the plan of garbage collection goes by.

That is: the branches of the git repository, which of them have the models' commits, and the size of each
model. A trigger keeps the sizes, because the release before, which knows nothing of them, publishes too while
both run. The policy also asks for the builds that have ended without success not long ago.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0033"
down_revision: str | None = "0032"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "git_repository",
        sa.Column("id", sa.Integer(), server_default=sa.text("1"), autoincrement=False, nullable=False),
        sa.Column("remote", sa.Text(), nullable=True),
        sa.Column("main_branch", sa.Text(), nullable=True),
        sa.Column("main_names", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_git_repository_one_row")),
        sa.CheckConstraint(
            "num_nonnulls(fetched_at, remote, main_branch, fingerprint) IN (0, 4)",
            name=op.f("ck_git_repository_whole"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_git_repository")),
    )
    op.create_table(
        "git_branches",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha", sa.Text(), nullable=False),
        sa.Column("counts", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_git_branches")),
    )
    op.create_table(
        "model_commits",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("sha", sa.Text(), nullable=True),
        sa.Column("holders", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_model_commits_model_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_model_commits")),
    )
    op.create_index(
        "ix_builds_unsuccessful",
        "builds",
        ["finished_at"],
        postgresql_where=sa.text("state IN ('failed', 'cancelled')"),
    )
    op.add_column("models", sa.Column("file_count", sa.Integer(), server_default="0", nullable=False))
    op.add_column("models", sa.Column("file_bytes", sa.BigInteger(), server_default="0", nullable=False))
    # First, so that nothing is published between the trigger and the sums of what was published before it.
    op.execute("LOCK TABLE artifacts IN SHARE ROW EXCLUSIVE MODE")
    op.execute(
        """
        CREATE FUNCTION count_artifacts() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                UPDATE models SET file_count = file_count + of.files, file_bytes = file_bytes + of.bytes
                  FROM (SELECT model_id, count(*) AS files, sum(size_bytes) AS bytes FROM added
                         GROUP BY model_id) of
                 WHERE models.id = of.model_id;
            ELSIF TG_OP = 'DELETE' THEN
                UPDATE models SET file_count = file_count - of.files, file_bytes = file_bytes - of.bytes
                  FROM (SELECT model_id, count(*) AS files, sum(size_bytes) AS bytes FROM removed
                         GROUP BY model_id) of
                 WHERE models.id = of.model_id;
            ELSE
                -- Most changes are of other columns, and must not touch the model's row.
                UPDATE models SET file_bytes = file_bytes + of.bytes
                  FROM (SELECT model_id, sum(added.size_bytes - removed.size_bytes) AS bytes
                          FROM added JOIN removed USING (model_id, name) GROUP BY model_id) of
                 WHERE models.id = of.model_id AND of.bytes <> 0;
            END IF;
            RETURN NULL;
        END $$
        """
    )
    for event, tables in (
        ("INSERT", "NEW TABLE AS added"),
        ("UPDATE", "OLD TABLE AS removed NEW TABLE AS added"),
        ("DELETE", "OLD TABLE AS removed"),
    ):
        op.execute(
            f"""
            CREATE TRIGGER artifacts_counted_{event.lower()} AFTER {event} ON artifacts
            REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION count_artifacts()
            """
        )
    op.execute(
        """
        UPDATE models SET file_count = counted.files, file_bytes = counted.bytes
          FROM (SELECT model_id, count(*) AS files, sum(size_bytes) AS bytes FROM artifacts
                 GROUP BY model_id) counted
         WHERE models.id = counted.model_id
        """
    )


def downgrade() -> None:
    for event in ("insert", "update", "delete"):
        op.execute(f"DROP TRIGGER artifacts_counted_{event} ON artifacts")
    op.execute("DROP FUNCTION count_artifacts()")
    op.drop_column("models", "file_bytes")
    op.drop_column("models", "file_count")
    op.drop_index("ix_builds_unsuccessful", table_name="builds")
    op.drop_table("model_commits")
    op.drop_table("git_branches")
    op.drop_table("git_repository")
