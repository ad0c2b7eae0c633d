"""All that is served over HTTP: the page, its API, health and metrics."""
