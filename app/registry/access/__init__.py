"""Access: who may call, and who changed what."""
