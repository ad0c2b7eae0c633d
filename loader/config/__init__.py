"""The config: its models, its files, and the parsers of durations, sizes and cron."""
