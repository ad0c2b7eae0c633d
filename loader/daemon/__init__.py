"""Jobs on their schedules: the schedule and the service around it."""
