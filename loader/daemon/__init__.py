"""Jobs at their times, and jobs that follow the binlog: the schedule and the service around it."""
