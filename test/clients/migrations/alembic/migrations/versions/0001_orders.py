import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table(
        "orders", sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("customer", sa.Integer, nullable=False), schema="app")
    op.execute("INSERT INTO app.orders (customer) SELECT id FROM app.customers")


def downgrade():
    op.drop_table("orders", schema="app")
