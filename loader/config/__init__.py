"""The config: `models` of jobs and the daemon, `servers` of the source and the target, files, parsers and cron."""
