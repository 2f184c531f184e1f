"""Training of the network: the skorch net, its optimizer, when it stops."""
