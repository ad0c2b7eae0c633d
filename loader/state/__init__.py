"""What the loader remembers in the target: checkpoints, markers, locks, baselines, digests, history."""
