"""Operations on a job besides loading it: preview, status, verify, prune, rejects."""
