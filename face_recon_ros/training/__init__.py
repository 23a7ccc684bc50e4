"""Training of the network: synthetic faces, unlabelled photographs, no landmark anywhere."""
