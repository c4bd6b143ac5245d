"""What is learned: graph, quantizers, annealing, encoder, losses; tensors and arrays in and out."""
