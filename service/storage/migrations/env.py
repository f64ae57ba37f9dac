"""What Alembic runs: the migrations, on the connection that it is given."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # SQLite can alter little: Alembic recreates a table where it must.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
