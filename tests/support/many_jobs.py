"""A config of many jobs, for what is measured with it."""

HEAD = 'version: 1\nsource: {url: "mysql://loader@127.0.0.1/test"}\ntarget: {url: "redis://127.0.0.1"}\njobs:\n'
JOB = """\
  table_{n}:
    table: table_{n}
    key: "table_{n}:{{id}}"
    fields: [id, name, address]
    schedule: {{cron: "*/15 * * * *", timezone: UTC}}  # four times an hour
    changed_only: true
"""


def many_jobs(count):
    """The text of a config with so many jobs."""
    return HEAD + "".join(JOB.format(n=n) for n in range(count))
