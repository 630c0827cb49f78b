"""The contracts of all slots, one file a slot; what a slot must do stands in its file."""
