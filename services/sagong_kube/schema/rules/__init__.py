"""What makes an object right: checks of each kind, in upstream's order and words."""
