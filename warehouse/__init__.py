"""What is kept: immutable snapshots of Parquet tables, the ledger of paid requests, SQL over both.

Names are imported from their modules on first use, so that `import warehouse` costs neither pyarrow nor duckdb.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warehouse.batches import Batch, Batches
    from warehouse.catalogue import Catalogue
    from warehouse.commits import SnapshotBuilder
    from warehouse.databases import Database
    from warehouse.door import Door, check_door
    from warehouse.entities import attribute_text, pack_entities, unpack_attributes
    from warehouse.errors import (
        AlreadyAnsweredError,
        CorruptFileError,
        DiskFaultError,
        DiskFullError,
        DuplicateKeyError,
        FormatVersionError,
        IdentifierError,
        LedgerClosedError,
        LedgerWriteError,
        LockHeldError,
        LockRequiredError,
        LockUnsupportedError,
        MatrixError,
        PinnedError,
        SchemaDriftError,
        SchemaMismatchError,
        SqlError,
        TooLittleRoomError,
        UnknownAttemptError,
        UnknownColumnError,
        UnknownSnapshotError,
        UnknownTableError,
        UnknownUserError,
        UnsafePathError,
        WarehouseError,
        WarehouseRootError,
    )
    from warehouse.forget import Removal, Tombstones, forget_user
    from warehouse.fragments import Fragment, write_parquet
    from warehouse.ledger import Committed, Ledger, Spent, UncertainCost
    from warehouse.ledger_entries import Answer, Receipt, Standing
    from warehouse.matrices import MatrixPaths
    from warehouse.matrix_rows import MatrixDtype, MatrixSpec
    from warehouse.mirrors import LiveQuery, Mirror, mirror
    from warehouse.quality import Drift, Finding, RowCheck, drift, findings, quality_checks
    from warehouse.root import GcSummary, VerifySummary, Warehouse
    from warehouse.shards import VectorShards
    from warehouse.snapshot import Snapshot
    from warehouse.source_errors import (
        ColumnMapError,
        DatabaseError,
        EmptySourceError,
        MissingColumnError,
        MissingDatabaseError,
        MissingFileError,
        NotUtf8Error,
        SourceError,
        UnreadableSourceError,
        UnsafePickleError,
        VectorFileError,
    )
    from warehouse.sources import is_query, read_source, source_fingerprint
    from warehouse.storage import (
        atomic_write,
        canonical_json,
        content_key,
        disk_fault,
        file_sha256,
        make_directory,
        replacing,
        sql_identifier,
    )
    from warehouse.table import Table
    from warehouse.tables import (
        EMBEDDINGS,
        INTERACTIONS,
        ITEMS,
        LLM_CALLS,
        METRICS,
        METRICS_PER_USER,
        MODEL_REGISTRY,
        PROFILES,
        PROMOTIONS,
        PROMPTS,
        QUARANTINE,
        RECOMMENDATIONS,
        RUNS,
        SPLITS,
        TABLES,
        USERS,
        arrow_rows,
        arrow_table,
    )
    from warehouse.vector_files import NamedVectors, pickled_profiles, read_vectors, write_vectors

__all__ = [
    "EMBEDDINGS",
    "INTERACTIONS",
    "ITEMS",
    "LLM_CALLS",
    "METRICS",
    "METRICS_PER_USER",
    "MODEL_REGISTRY",
    "PROFILES",
    "PROMOTIONS",
    "PROMPTS",
    "QUARANTINE",
    "RECOMMENDATIONS",
    "RUNS",
    "SPLITS",
    "TABLES",
    "USERS",
    "AlreadyAnsweredError",
    "Answer",
    "Batch",
    "Batches",
    "Catalogue",
    "ColumnMapError",
    "Committed",
    "CorruptFileError",
    "Database",
    "DatabaseError",
    "DiskFaultError",
    "DiskFullError",
    "Door",
    "Drift",
    "DuplicateKeyError",
    "EmptySourceError",
    "Finding",
    "FormatVersionError",
    "Fragment",
    "GcSummary",
    "IdentifierError",
    "Ledger",
    "LedgerClosedError",
    "LedgerWriteError",
    "LiveQuery",
    "LockHeldError",
    "LockRequiredError",
    "LockUnsupportedError",
    "MatrixDtype",
    "MatrixError",
    "MatrixPaths",
    "MatrixSpec",
    "Mirror",
    "MissingColumnError",
    "MissingDatabaseError",
    "MissingFileError",
    "NamedVectors",
    "NotUtf8Error",
    "PinnedError",
    "Receipt",
    "Removal",
    "RowCheck",
    "SchemaDriftError",
    "SchemaMismatchError",
    "Snapshot",
    "SnapshotBuilder",
    "SourceError",
    "Spent",
    "SqlError",
    "Standing",
    "Table",
    "Tombstones",
    "TooLittleRoomError",
    "UncertainCost",
    "UnknownAttemptError",
    "UnknownColumnError",
    "UnknownSnapshotError",
    "UnknownTableError",
    "UnknownUserError",
    "UnreadableSourceError",
    "UnsafePathError",
    "UnsafePickleError",
    "VectorFileError",
    "VectorShards",
    "VerifySummary",
    "Warehouse",
    "WarehouseError",
    "WarehouseRootError",
    "arrow_rows",
    "arrow_table",
    "atomic_write",
    "attribute_text",
    "canonical_json",
    "check_door",
    "content_key",
    "disk_fault",
    "drift",
    "file_sha256",
    "findings",
    "forget_user",
    "is_query",
    "make_directory",
    "mirror",
    "pack_entities",
    "pickled_profiles",
    "quality_checks",
    "read_source",
    "read_vectors",
    "replacing",
    "source_fingerprint",
    "sql_identifier",
    "unpack_attributes",
    "write_parquet",
    "write_vectors",
]

_HOMES = {
    "batches": ("Batch", "Batches"),
    "catalogue": ("Catalogue",),
    "commits": ("SnapshotBuilder",),
    "databases": ("Database",),
    "door": ("Door", "check_door"),
    "entities": ("attribute_text", "pack_entities", "unpack_attributes"),
    "forget": ("Removal", "Tombstones", "forget_user"),
    "fragments": ("Fragment", "write_parquet"),
    "ledger": ("Committed", "Ledger", "Spent", "UncertainCost"),
    "ledger_entries": ("Answer", "Receipt", "Standing"),
    "matrices": ("MatrixPaths",),
    "matrix_rows": ("MatrixDtype", "MatrixSpec"),
    "mirrors": ("LiveQuery", "Mirror", "mirror"),
    "quality": ("RowCheck", "Drift", "Finding", "drift", "findings", "quality_checks"),
    "root": ("GcSummary", "VerifySummary", "Warehouse"),
    "shards": ("VectorShards",),
    "snapshot": ("Snapshot",),
    "source_errors": (
        "ColumnMapError",
        "DatabaseError",
        "EmptySourceError",
        "MissingColumnError",
        "MissingDatabaseError",
        "MissingFileError",
        "NotUtf8Error",
        "SourceError",
        "UnreadableSourceError",
        "UnsafePickleError",
        "VectorFileError",
    ),
    "sources": ("is_query", "read_source", "source_fingerprint"),
    "storage": (
        "atomic_write",
        "canonical_json",
        "content_key",
        "disk_fault",
        "file_sha256",
        "make_directory",
        "replacing",
        "sql_identifier",
    ),
    "table": ("Table",),
    "vector_files": ("NamedVectors", "pickled_profiles", "read_vectors", "write_vectors"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # what has no other home is an error, a table, or the way to fill one
    rest = "errors" if name.endswith("Error") else "tables"
    home = next((module for module, names in _HOMES.items() if name in names), rest)
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
