"""The config: its models, its files, and the notations of durations, sizes and cron."""
