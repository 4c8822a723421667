from logging.config import fileConfig

from alembic import context
from sqlalchemy import engine_from_config, event, pool

config = context.config
fileConfig(config.config_file_name)

engine = engine_from_config(
    config.get_section(config.config_ini_section), poolclass=pool.NullPool,
    connect_args={"options": "-c client_connection_check_interval=1000"})


@event.listens_for(engine, "connect")
def take_lock(connection, _):
    connection.autocommit = True
    connection.cursor().execute("CALL lock_acquire_wait('migrations', scope => 'session')")
    connection.autocommit = False


with engine.connect() as connection:
    context.configure(connection=connection, version_table_schema="app", transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
