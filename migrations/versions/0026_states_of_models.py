"""Record what garbage collection has done with each model, and have the database refuse what it must not do.

The release before, which runs beside this one during an upgrade, promotes and publishes as before. Only
what it would do with a marked model is refused.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0026"
down_revision: str | None = "0025"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "marked_at": _TIME,
    "mark_reason": postgresql.JSONB(astext_type=sa.Text()),
    "marked_by_run": sa.Uuid(),
    "collected_at": _TIME,
    "pinned_at": _TIME,
    "pinned_by": sa.Text(),
    "pinned_by_kind": sa.Text(),
    "pin_note": sa.Text(),
    "released_at": _TIME,
    "released_by": sa.Text(),
    "released_by_kind": sa.Text(),
    "release_note": sa.Text(),
}
_CHECKS = {
    "state": "state IN ('kept', 'marked', 'sweeping', 'collected')",
    "marked_whole": "num_nonnulls(marked_at, mark_reason) = CASE WHEN state = 'kept' THEN 0 ELSE 2 END",
    "marked_by_run": "marked_by_run IS NULL OR marked_at IS NOT NULL",
    "collected": "(state = 'collected') = (collected_at IS NOT NULL)",
    "pinned_whole": "num_nonnulls(pinned_at, pinned_by, pinned_by_kind, pin_note) IN (0, 4)",
    "pinned_kept": "state = 'kept' OR pinned_at IS NULL",
    "released_whole": "num_nonnulls(released_at, released_by, released_by_kind, release_note) IN (0, 4)",
}


def upgrade() -> None:
    op.add_column("models", sa.Column("state", sa.Text(), server_default="kept", nullable=False))
    for name, kind in _COLUMNS.items():
        op.add_column("models", sa.Column(name, kind, nullable=True))
    op.create_foreign_key(
        op.f("fk_models_marked_by_run"), "models", "runs", ["marked_by_run"], ["id"], ondelete="RESTRICT"
    )
    for name, condition in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_models_{name}"), "models", condition)
    newest: list[str | sa.ColumnElement[str]] = [
        sa.literal_column("published_at DESC"),
        sa.literal_column("id DESC"),
    ]
    op.create_index("ix_models_state_published", "models", ["state", *newest])
    op.create_index(
        "ix_models_being_collected",
        "models",
        ["marked_at", "id"],
        postgresql_where=sa.text("state IN ('marked', 'sweeping')"),
    )
    # A promotion locks its stage and then, FOR SHARE, the row of its model, and keeps both until it commits.
    # A change of a model's state locks that row in a way that conflicts with FOR SHARE, and locks no stage.
    # So one of the two waits for the other and then sees what it did, and they cannot deadlock.
    op.execute(
        """
        CREATE FUNCTION refuse_model_change() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            refused text;
        BEGIN
            IF NEW.prefix <> OLD.prefix THEN
                RAISE EXCEPTION 'the prefix of model % never changes', OLD.prefix
                    USING ERRCODE = 'restrict_violation', CONSTRAINT = 'models_prefix';
            END IF;
            IF (OLD.state, NEW.state) NOT IN (
                ('kept', 'marked'), ('marked', 'kept'), ('marked', 'sweeping'), ('sweeping', 'collected')
            ) THEN
                RAISE EXCEPTION 'model % is %, and cannot become %', OLD.prefix, OLD.state, NEW.state
                    USING ERRCODE = 'restrict_violation', CONSTRAINT = 'models_next_state';
            END IF;
            IF NEW.state IN ('marked', 'sweeping') THEN
                -- The order of promotions is that of history.newest_first().
                SELECT string_agg(stage, ', ') INTO refused
                  FROM unnest(ARRAY['development', 'staging', 'production']) WITH ORDINALITY stages (stage)
                 WHERE NEW.id = (
                    SELECT model_id FROM promotions WHERE promotions.stage = stages.stage
                     ORDER BY promoted_at DESC, promotions.id DESC LIMIT 1
                 );
                IF refused IS NOT NULL THEN
                    RAISE EXCEPTION 'model % runs in %, so it cannot be collected', OLD.prefix, refused
                        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'models_running';
                END IF;
                SELECT string_agg(DISTINCT stage, ', ') INTO refused FROM promotions
                 WHERE model_id = NEW.id AND stage IN ('staging', 'production')
                   AND (NEW.released_at IS NULL OR promoted_at >= NEW.released_at);
                IF refused IS NOT NULL THEN
                    RAISE EXCEPTION 'model % was in %, and nobody has released it since', OLD.prefix, refused
                        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'models_released';
                END IF;
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER models_change BEFORE UPDATE ON models FOR EACH ROW
        WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.prefix IS DISTINCT FROM NEW.prefix)
        EXECUTE FUNCTION refuse_model_change()
        """
    )
    op.execute(
        """
        CREATE FUNCTION refuse_model_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'models are never deleted: a collected one keeps its row and its prefix'
                USING ERRCODE = 'restrict_violation', CONSTRAINT = 'models_stay';
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER models_stay BEFORE DELETE OR TRUNCATE ON models
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_model_deletion()
        """
    )
    op.execute(
        """
        CREATE FUNCTION refuse_promotion() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            found record;
        BEGIN
            SELECT prefix, state INTO found FROM models WHERE id = NEW.model_id FOR SHARE;
            IF found.state <> 'kept' THEN
                RAISE EXCEPTION 'model % is %, so it cannot be promoted', found.prefix, found.state
                    USING ERRCODE = 'restrict_violation', CONSTRAINT = 'promotions_of_kept_models';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER promotions_of_kept_models BEFORE INSERT ON promotions
        FOR EACH ROW EXECUTE FUNCTION refuse_promotion()
        """
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER promotions_of_kept_models ON promotions")
    op.execute("DROP FUNCTION refuse_promotion()")
    op.execute("DROP TRIGGER models_stay ON models")
    op.execute("DROP FUNCTION refuse_model_deletion()")
    op.execute("DROP TRIGGER models_change ON models")
    op.execute("DROP FUNCTION refuse_model_change()")
    op.drop_index("ix_models_being_collected", table_name="models")
    op.drop_index("ix_models_state_published", table_name="models")
    for name in reversed(_CHECKS):
        op.drop_constraint(op.f(f"ck_models_{name}"), "models", type_="check")
    op.drop_constraint(op.f("fk_models_marked_by_run"), "models", type_="foreignkey")
    for name in reversed(_COLUMNS):
        op.drop_column("models", name)
    op.drop_column("models", "state")
