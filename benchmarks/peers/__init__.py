"""Programs that run inside the environments of other libraries; nothing of ours is imported there."""
