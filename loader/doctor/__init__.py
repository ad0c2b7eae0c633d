"""Read-only checks of both servers and of the jobs, each finding with its fix."""
