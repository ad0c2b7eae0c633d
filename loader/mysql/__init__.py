"""MySQL: connections, the catalog, statements, keys and chunks. Only this package imports PyMySQL."""
