"""The settings of a HelixDB, which stand directly in an instance's table."""

from __future__ import annotations

from pydantic import Field

from project.table import U32, Name, Table


class VectorConfig(Table):
    """The vector index of a HelixDB v2."""

    m: U32 = 16
    """Neighbours per node of the index."""
    ef_construction: U32 = 128
    """Candidates looked at while the index is built."""
    ef_search: U32 = 768
    """Candidates looked at in a search."""
    db_max_size_gb: U32 = 20
    """The most the database may grow to, in GB."""


class GraphConfig(Table):
    """The graph of a HelixDB v2."""

    secondary_indices: list[str] = []
    """Properties that get an index of their own."""


class DbConfig(Table):
    """The settings of a HelixDB v2, written directly into the instance's table."""

    mcp: bool = True
    """Serve the Model Context Protocol under /mcp/."""
    bm25: bool = True
    """Keep a full-text index."""
    vector_config: VectorConfig = VectorConfig()
    """The vector index."""
    graph_config: GraphConfig = GraphConfig()
    """The graph."""
    schema_: str | None = Field(None, alias="schema")
    """The schema, if it is not in a schema.hx."""
    embedding_model: str | None = "text-embedding-ada-002"
    """The model that makes embeddings; a prefix such as gemini: chooses the provider."""
    graphvis_node_label: str | None = None
    """The property that the dashboard labels nodes with."""


class S3Storage(Table):
    """The object storage of a HelixDB v3."""

    bucket: Name
    """The bucket."""
    prefix: str = "db/"
    """Where in the bucket."""
    region: str = "us-east-1"
    """The bucket's region."""
    endpoint_url: str | None = Field(None, pattern=r"^https?://")
    """The address of a storage that is not AWS."""
    allow_http: bool = False
    """Allow an address without TLS."""
