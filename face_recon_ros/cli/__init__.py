"""The command line `face-recon`: one file a command."""
