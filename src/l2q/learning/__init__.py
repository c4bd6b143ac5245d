"""Lightning: data module, recommender, callbacks."""
