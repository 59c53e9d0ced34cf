"""NIR files of spiking networks, read and written."""

from bittrue.sim.extras import need

need("nir", "NIR files")
need("h5py", "NIR files")
