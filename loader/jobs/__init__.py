"""Operations on a job besides loading it: preview, status, follow, verify, rejects, prune (of what `orphans` finds)."""
