"""What can be done with a job besides loading it: preview, status, verify, prune, rejects."""
