"""The regular networks on images."""
