"""Looking into a network: its table, its memory, its speed layer by layer, its gradients."""
