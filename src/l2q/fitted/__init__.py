"""Models that are fitted in closed form: train in, representations out."""
