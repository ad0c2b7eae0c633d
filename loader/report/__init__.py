"""Results as text, JSON, logs and progress. Only this package imports structlog and rich."""
