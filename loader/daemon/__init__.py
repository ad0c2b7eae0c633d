"""Jobs at their times: the schedule and the service around it."""
