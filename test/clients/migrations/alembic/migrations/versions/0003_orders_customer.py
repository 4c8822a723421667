from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    with op.get_context().autocommit_block():
        # of a run that was killed meanwhile, an invalid index may be left
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS app.orders_customer")
        op.execute("CREATE INDEX CONCURRENTLY orders_customer ON app.orders (customer)")


def downgrade():
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS app.orders_customer")
