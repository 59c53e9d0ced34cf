"""NIR files of spiking networks, read and written."""
