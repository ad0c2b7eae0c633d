"""MySQL: connections, the catalog, statements, keys, chunks and the binlog. Only this package imports PyMySQL."""
