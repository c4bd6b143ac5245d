"""What comes in: interactions, public sets, splits, negative samples."""
