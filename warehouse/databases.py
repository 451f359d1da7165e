"""Databases through SQLAlchemy: the rows of a query as Arrow, and a table that is replaced whole."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from warehouse.source_errors import DatabaseError, MissingDatabaseError

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

_ROWS_AT_ONCE = 20_000
_SINCE = "semalign_since"
_PLAIN = (str, int, float, bool, bytes, datetime, date, time, list)
# a server's own words may repeat what it was given
_CREDENTIALS = re.compile(r"//[^/@\s]*@|password=\S+")


class Database:
    """A database by URL; nothing is connected to before it is asked.

    Args:
        url_env: name of the environment variable that holds a SQLAlchemy URL, such as
            `postgresql+psycopg://shop@db.example/shop`. The URL may hold a password: it is in no setting, no error
            and no log.

    Raises:
        MissingDatabaseError: the variable is empty, or SQLAlchemy or the URL's driver is not installed.
    """

    def __init__(self, url_env: str) -> None:
        self.url_env = url_env
        url = os.environ.get(url_env, "").strip()
        if not url:
            raise MissingDatabaseError(url_env, "it is not set")
        try:
            import sqlalchemy as sa
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as error:
            raise MissingDatabaseError(url_env, "SQLAlchemy is not installed") from error
        try:
            self._engine = sa.create_engine(url, hide_parameters=True)
        except ImportError as error:
            raise MissingDatabaseError(url_env, f"{error.name} is not installed") from error
        except (SQLAlchemyError, ValueError) as error:  # which would repeat the URL
            raise MissingDatabaseError(url_env, "it holds no SQLAlchemy URL") from error

    @property
    def place(self) -> str:
        """Where the database is, fit to be shown: the URL without user, password and options."""
        import sqlalchemy as sa

        url = self._engine.url
        return sa.URL.create(url.drivername, host=url.host, port=url.port, database=url.database).render_as_string()

    @contextmanager
    def reading(self) -> Iterator["Reader"]:
        """Queries that cannot write; in PostgreSQL all of the block see one moment of the database.

        Raises:
            DatabaseError: it cannot be reached, or a query does not run.
        """
        with self._named_errors(), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            elif connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA query_only = ON")
            try:
                yield Reader(connection)
            finally:
                if connection.dialect.name == "sqlite":
                    connection.exec_driver_sql("PRAGMA query_only = OFF")

    def replace(self, table: str, rows: "pa.Table") -> None:
        """The table holds exactly these rows; whoever reads it sees all the old ones or all the new ones.

        A table that is not there is made; one that is there keeps its indices and grants, and must have the columns.

        Raises:
            DatabaseError: nothing was written.
        """
        import sqlalchemy as sa

        kinds = [sa.Column(field.name, _column_type(field.type), nullable=field.nullable) for field in rows.schema]
        declared = sa.Table(table, sa.MetaData(), *kinds)
        with self._named_errors(), self._engine.begin() as connection:
            declared.create(connection, checkfirst=True)
            connection.execute(declared.delete())
            if self._engine.dialect.driver == "psycopg":
                _copy(connection, table, rows)
                return
            for batch in rows.to_batches(max_chunksize=_ROWS_AT_ONCE):
                columns = [_column(column.to_pylist()) for column in batch.columns]
                written = [dict(zip(rows.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
                if written:
                    connection.execute(declared.insert(), written)

    def close(self) -> None:
        """Gives its connections back."""
        self._engine.dispose()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            said = str(getattr(error, "orig", None) or error).strip()
            said = _CREDENTIALS.sub("…", re.sub(r"\s+", " ", said))
            raise DatabaseError(self.place, said[:300]) from error


class Reader:
    """Queries inside one moment of a database."""

    def __init__(self, connection: "sa.Connection") -> None:
        self._connection = connection

    def state(self, query: str, since: str) -> tuple[int, Any]:
        """How many rows a query gives, and the largest value of a column."""
        largest = self._quoted(since)
        row = self._execute(f"SELECT count(*), max({largest}) FROM ({_one(query)}) AS asked", None).one()
        return int(row[0]), row[1]

    def rows(self, query: str, since: tuple[str, Any] | None = None) -> "pa.Table":
        """The rows of a query, or those whose column is not below a value."""
        import pyarrow as pa

        sql = f"SELECT * FROM ({_one(query)}) AS asked"
        if since is not None:
            sql += f" WHERE {self._quoted(since[0])} >= :{_SINCE}"
        result = self._execute(sql, since[1] if since else None)
        names = list(result.keys())
        blocks = [_arrow(names, block) for block in result.partitions(_ROWS_AT_ONCE)]
        if not blocks:
            return pa.table({name: pa.nulls(0) for name in names})
        return pa.concat_tables(blocks, promote_options="permissive").combine_chunks()

    def _execute(self, sql: str, since: Any) -> Any:
        import sqlalchemy as sa

        streamed = self._connection.execution_options(stream_results=True, yield_per=_ROWS_AT_ONCE)
        # a colon of a cast or a time is no parameter
        statement = sa.text(re.sub(rf"(?<!:):(?!{_SINCE}\b)(?=\w)", r"\\:", sql))
        return streamed.execute(statement, {} if since is None else {_SINCE: since})

    def _quoted(self, name: str) -> str:
        return self._connection.dialect.identifier_preparer.quote_identifier(name)


def _one(query: str) -> str:
    return query.strip().rstrip(";")


def _arrow(names: Sequence[str], block: Sequence[Sequence[Any]]) -> "pa.Table":
    import pyarrow as pa

    columns = zip(*block, strict=True)
    return pa.table({name: pa.array(list(map(_plain, column))) for name, column in zip(names, columns, strict=True)})


def _plain(value: Any) -> Any:
    """A value that Arrow knows: whole decimals as integers, so that a NUMERIC id stays one; the rest as text."""
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, memoryview):
        return bytes(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _column_type(kind: "pa.DataType") -> Any:
    import pyarrow as pa
    import sqlalchemy as sa

    if pa.types.is_boolean(kind):
        return sa.Boolean()
    if pa.types.is_integer(kind):
        return sa.BigInteger() if kind.bit_width > 32 else sa.Integer()
    if pa.types.is_floating(kind):
        return sa.Double()
    if pa.types.is_timestamp(kind):
        return sa.DateTime(timezone=kind.tz is not None)
    return sa.Text()


def _column(values: list[Any]) -> list[Any]:
    """Lists and structs as JSON."""
    nested = any(isinstance(value, list | dict) for value in values)
    if not nested:
        return values
    return [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values]


def _copy(connection: "sa.Connection", table: str, rows: "pa.Table") -> None:
    """PostgreSQL's own way in, ten times as fast as inserting rows."""
    driver = connection.connection.driver_connection
    quote = connection.dialect.identifier_preparer.quote_identifier
    names = ", ".join(map(quote, rows.column_names))
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(f"COPY {quote(table)} ({names}) FROM STDIN") as target:
        for batch in rows.to_batches(max_chunksize=_ROWS_AT_ONCE):
            for row in zip(*(_column(column.to_pylist()) for column in batch.columns), strict=True):
                target.write_row(row)
