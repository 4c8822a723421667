import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("customers", sa.Column("email", sa.Text), schema="app")
    op.execute("UPDATE app.customers SET email = name || '@example.com'")


def downgrade():
    op.drop_column("customers", "email", schema="app")
