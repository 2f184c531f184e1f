"""How the network is trained: the skorch net, its optimizer, when it stops."""
