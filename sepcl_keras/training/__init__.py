"""The loop of all trainings: fit, the written-out train_step, optimizer, schedule, logs, checkpoints."""
