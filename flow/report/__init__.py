"""The report of a flow, its pictures, and the energy view."""
