"""Several images in one pass: bound with keys, added, sent through one network together, and taken apart again."""
