"""Training: losses, optimizers, schedules, the step that is repeated, and the loop around it."""
